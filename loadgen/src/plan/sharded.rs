//! Whether a plan can be shared out among several generators.

use jiff::Timestamp;

use super::check::{LEAVE_ONE_OUT, wrong};
use super::{Part, PlanError, Resolved};
use crate::shard::Shard;

impl Resolved {
    /// This, of which only a part is sent here; the steady phase begins then.
    ///
    /// # Errors
    /// When the plan cannot be shared out.
    pub fn shared_out(self, shard: Shard, start_at: Timestamp) -> Result<Self, PlanError> {
        self.check_parts(shard)?;
        Ok(Self { part: Some(Part { shard, start_at }), ..self })
    }

    fn check_parts(&self, shard: Shard) -> Result<(), PlanError> {
        let plan = &self.plan;
        let refuse = |problem: &str, remedy: &str| Err(wrong("--shard", shard, problem, remedy));
        let started = plan.variants.iter().find(|variant| match self.profiles.get(&variant.name) {
            Some(profile) => profile.start.is_some(),
            None => variant.url.is_none(),
        });
        if let Some(started) = started {
            let problem =
                format!("is a part of a load on one server, and {} would be started once by each part", started.name);
            return refuse(&problem, "start the server by itself, and give all parts its address with --target URL");
        }
        if plan.variants.len() > 1 {
            return refuse("goes with one --target: the others have no common start", "measure one after the other");
        }
        if plan.repeat > 1 {
            let remedy = "leave --repeat out, and run it again with another --run-id and --start-at";
            return refuse("goes with one repetition: the others have no common start", remedy);
        }
        if plan.connections < shard.count {
            let problem = format!("divides {} connections among {} generators", plan.connections, shard.count);
            return refuse(&problem, "give as many --connections as there are parts, or more");
        }
        if plan.webhooks {
            let problem = "does not go with --webhooks: the receiver of one generator would be told the events of all";
            return refuse(problem, LEAVE_ONE_OUT);
        }
        Ok(())
    }
}
