-- An organisation's webhook: one row, or none. The secret is kept as it is, because each delivery is signed with it.
-- disabled_at: when the receiver answered 410 (Gone); NULL while events are delivered.
CREATE TABLE webhooks (
    organization_id BLOB PRIMARY KEY,
    url TEXT NOT NULL,
    secret BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    disabled_at INTEGER
) STRICT, WITHOUT ROWID;

-- Events that are owed to a webhook: a row goes when its event is delivered, or becomes a dead letter.
-- next_attempt_at: when it is due; while an attempt runs, the end of the claimant's lease, which is also the claimant's token.
-- attempts: those that have failed.
CREATE TABLE deliveries (
    event_id BLOB PRIMARY KEY,
    organization_id BLOB NOT NULL,
    next_attempt_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX deliveries_organization ON deliveries (organization_id, next_attempt_at);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at);

-- A trigger and not a statement of the server's: it writes what is owed with the event, whichever process takes the event in
-- and whether or not it has heard of the webhook yet, and it costs one look into an index of a small table for each event.
CREATE TRIGGER events_owed AFTER INSERT ON events
WHEN EXISTS (SELECT 1 FROM webhooks WHERE organization_id = NEW.organization_id AND disabled_at IS NULL)
BEGIN
    INSERT INTO deliveries (event_id, organization_id, next_attempt_at, attempts)
    VALUES (NEW.id, NEW.organization_id, NEW.inserted_at, 0);
END;
