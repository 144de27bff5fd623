//! The ledger of a variant as a flow: what was planned, sent, acknowledged, persisted and delivered, and what left or joined on the way.

use crate::flow::{Branch, Flow, Kind, Stage, Way};
use crate::model::{Delivery, Ledger, Load, Mix, Run};
use crate::summary::Group;

/// Of all repetitions of `group` that were reconciled; `None`: there is none. `place` tells the variants of a run apart.
pub fn flow(run: &Run, place: usize, group: &Group<'_>) -> Option<Flow> {
    let reconciled: Vec<(&Load, &Ledger)> =
        group.results.iter().filter_map(|r| Some((&r.load, r.ledger.as_ref()?))).collect();
    (!reconciled.is_empty()).then(|| {
        let mut stages = if run.plan.mix == Mix::default() { requests(&reconciled) } else { Vec::new() };
        stages.extend(events(&reconciled, !stages.is_empty()));
        Flow { id: format!("ledger-{place}"), title: group.name.to_owned(), stages }
    })
}

fn out(kind: Kind, count: u64, name: &'static str) -> Branch {
    Branch { way: Way::Out, kind, count, name }
}

fn into(kind: Kind, count: u64, name: &'static str) -> Branch {
    Branch { way: Way::In, kind, count, name }
}

/// What was to be sent, and was. Only where a request is an event: a mix reads, too, and sends several at once.
fn requests(of: &[(&Load, &Ledger)]) -> Vec<Stage> {
    let sum = |read: fn(&Load) -> u64| of.iter().map(|(load, _)| read(load)).sum::<u64>();
    let (planned, not_sent) = (sum(|load| load.planned), sum(|load| load.outcomes.not_sent));
    vec![
        Stage { name: "planned", count: planned, branches: Vec::new() },
        Stage {
            name: "sent",
            count: planned.saturating_sub(not_sent),
            branches: vec![out(Kind::Doubt, not_sent, "not sent")],
        },
    ]
}

/// What became of it.
fn events(of: &[(&Load, &Ledger)], follow_requests: bool) -> Vec<Stage> {
    let sum = |read: fn(&Ledger) -> u64| of.iter().map(|(_, ledger)| read(ledger)).sum::<u64>();
    let (acknowledged, persisted) = (sum(|ledger| ledger.acknowledged), sum(|ledger| ledger.persisted));
    let mut stages = vec![
        Stage {
            name: "acknowledged",
            count: acknowledged,
            branches: if follow_requests { answers(of, acknowledged) } else { Vec::new() },
        },
        Stage {
            name: "persisted",
            count: persisted,
            branches: vec![
                out(Kind::Fault, sum(|ledger| ledger.lost), "lost"),
                out(Kind::Doubt, sum(|ledger| ledger.unverified), "unverified"),
                into(Kind::Fault, sum(|ledger| ledger.duplicated), "duplicated"),
                into(Kind::Fault, sum(|ledger| ledger.corrupted), "stored altered"),
                into(Kind::Allowed, sum(|ledger| ledger.unacknowledged), "stored, answer not read"),
            ],
        },
    ];
    if of.iter().any(|(_, ledger)| ledger.delivered.is_some()) {
        let delivery = |read: fn(&Delivery) -> u64| {
            of.iter().filter_map(|(_, ledger)| ledger.delivery.as_ref()).map(read).sum::<u64>()
        };
        let delivered = sum(|ledger| ledger.delivered.unwrap_or(0));
        stages.push(Stage {
            name: "delivered",
            count: delivered,
            branches: vec![
                // What is lost cannot be delivered, and has left already.
                out(Kind::Fault, persisted.saturating_sub(delivered), "kept, not delivered"),
                into(Kind::Fault, delivery(|d| d.altered), "delivered altered"),
                into(Kind::Fault, delivery(|d| d.badly_signed.unwrap_or(0)), "badly signed"),
                into(Kind::Allowed, delivery(|d| d.repeated), "delivered again"),
            ],
        });
    }
    stages
}

/// What came in place of an acknowledgement, and the events of the other phases, which count too.
fn answers(of: &[(&Load, &Ledger)], acknowledged: u64) -> Vec<Branch> {
    let sum = |read: fn(&Load) -> u64| of.iter().map(|(load, _)| read(load)).sum::<u64>();
    let refused_rightly = sum(|load| load.repeats.refused);
    let first_time = sum(|load| load.outcomes.accepted - load.repeats.accepted.min(load.outcomes.accepted));
    vec![
        out(Kind::Allowed, refused_rightly, "repeats refused, rightly"),
        out(Kind::Doubt, sum(|load| load.outcomes.rejected).saturating_sub(refused_rightly), "refused"),
        out(Kind::Doubt, sum(|load| load.outcomes.failed), "failed"),
        out(Kind::Doubt, sum(|load| load.outcomes.timed_out), "timed out"),
        into(Kind::Allowed, acknowledged.saturating_sub(first_time), "of the warm-up"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;
    use crate::summary::groups;

    fn of(run: &Run) -> Flow {
        flow(run, 0, &groups(run)[0]).unwrap()
    }

    fn branch<'a>(flow: &'a Flow, name: &str) -> &'a Branch {
        flow.stages.iter().flat_map(|stage| &stage.branches).find(|branch| branch.name == name).unwrap()
    }

    #[test]
    fn every_event_that_was_acknowledged_is_persisted_lost_or_unverified() {
        let run = fixtures::lying_server();
        let flow = of(&run);
        let count = |name: &str| flow.stages.iter().find(|stage| stage.name == name).unwrap().count;
        let lost = branch(&flow, "lost");
        assert_eq!(lost.kind, Kind::Fault);
        assert!(lost.count > 1_000);
        assert_eq!(count("acknowledged"), count("persisted") + lost.count + branch(&flow, "unverified").count);
        let left = ["refused", "failed", "timed out"].map(|name| branch(&flow, name).count).iter().sum::<u64>();
        assert_eq!(count("sent") + branch(&flow, "of the warm-up").count, count("acknowledged") + left);
    }

    #[test]
    fn repeats_that_are_refused_are_as_they_should_be_and_not_lost() {
        let mut run = fixtures::small();
        run.results.truncate(1);
        run.results[0] = fixtures::small().results[1].clone();
        run.plan.variants.remove(0);
        let load = &mut run.results[0].load;
        load.outcomes.accepted -= 40;
        (load.outcomes.rejected, load.repeats.refused, load.repeats.sent) = (40, 30, 30);
        let flow = of(&run);
        assert_eq!((branch(&flow, "repeats refused, rightly").count, branch(&flow, "refused").count), (30, 10));
        assert_eq!(branch(&flow, "repeats refused, rightly").kind, Kind::Allowed);
    }

    #[test]
    fn requests_that_are_no_events_are_not_mixed_with_events() {
        let mut run = fixtures::lying_server();
        (run.plan.mix.ingest, run.plan.mix.inbox) = (0.9, 0.1);
        assert_eq!(of(&run).stages[0].name, "acknowledged");
    }

    #[test]
    fn what_was_not_delivered_is_a_fault_and_what_was_delivered_again_is_not() {
        let mut run = fixtures::lying_server();
        let ledger = run.results[0].ledger.as_mut().unwrap();
        ledger.delivered = Some(ledger.persisted - 5);
        ledger.delivery = Some(Delivery { undelivered: 1_105, repeated: 7, ..Delivery::default() });
        let flow = of(&run);
        assert_eq!(flow.stages.last().unwrap().name, "delivered");
        assert_eq!(branch(&flow, "kept, not delivered"), &out(Kind::Fault, 5, "kept, not delivered"));
        assert_eq!(branch(&flow, "delivered again"), &into(Kind::Allowed, 7, "delivered again"));
    }

    #[test]
    fn what_nobody_reconciled_has_no_flow() {
        let run = fixtures::three_modes();
        assert!(flow(&run, 0, &groups(&run)[0]).is_none());
    }
}
