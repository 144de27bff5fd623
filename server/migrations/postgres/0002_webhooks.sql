-- An organisation's webhook: one row, or none. The secret is kept as it is, because each delivery is signed with it.
-- disabled_at: when the receiver answered 410 (Gone); NULL while events are delivered.
CREATE TABLE webhooks (
    organization_id UUID PRIMARY KEY,
    url TEXT NOT NULL,
    secret BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    disabled_at BIGINT
);

-- Events that are owed to a webhook: a row goes when its event is delivered, or becomes a dead letter. The statement that
-- writes an event writes what is owed too.
-- next_attempt_at: when it is due; while an attempt runs, the end of the claimant's lease, which is also the claimant's token.
-- attempts: those that have failed.
CREATE TABLE deliveries (
    event_id UUID PRIMARY KEY,
    organization_id UUID NOT NULL,
    next_attempt_at BIGINT NOT NULL,
    attempts INTEGER NOT NULL
);

CREATE INDEX deliveries_organization ON deliveries (organization_id, next_attempt_at);
CREATE INDEX deliveries_due ON deliveries (next_attempt_at);
