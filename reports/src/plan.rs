//! What was asked for, in words: the one place where the table and the page get the sentences of a plan from.

use crate::format;
use crate::model::{Arrivals, HttpVersion, Mix, PayloadSizes, Plan, Realtime, Replay, Shape};

/// `Poisson, 1 000/s`; `constant, ramp from 100/s to 5 000/s, 2 550/s on average`; `closed loop`.
pub fn arrivals(plan: &Plan) -> String {
    if let Some(replay) = &plan.replay {
        return format!("as recorded in {}", recording(replay, plan.rate_per_s));
    }
    let drawn = match plan.arrivals {
        Arrivals::Closed => return "closed loop".to_owned(),
        Arrivals::Poisson => "Poisson",
        Arrivals::Constant => "constant",
    };
    match &plan.shape {
        None if plan.rate_per_s <= 0.0 => format!("{drawn}, at the rate of each trial"),
        None => format!("{drawn}, {}", format::rate(plan.rate_per_s)),
        Some(shape) => format!("{drawn}, {}, {} on average", self::shape(shape), format::rate(plan.rate_per_s)),
    }
}

fn shape(shape: &Shape) -> String {
    match shape {
        Shape::Ramp { from_per_s, to_per_s } => {
            format!("ramp from {} to {}", format::rate(*from_per_s), format::rate(*to_per_s))
        }
        Shape::Steps { rates_per_s } => {
            let rates: Vec<String> = rates_per_s.iter().map(|rate| format::rate(*rate)).collect();
            format!("steps of {}", rates.join(", "))
        }
        Shape::Burst { base_per_s, height_per_s, length_ms, every_ms } => format!(
            "{} with bursts of {} for {} every {}",
            format::rate(*base_per_s),
            format::rate(*height_per_s),
            ms(*length_ms),
            ms(*every_ms)
        ),
    }
}

fn recording(replay: &Replay, rate_per_s: f64) -> String {
    let speed =
        if replay.speed == 1.0 { String::new() } else { format!(" at {} × its speed", format::number(replay.speed)) };
    let events = format::counted(replay.events, "event");
    format!("{}{speed}: {events}, {} on average", replay.file, format::rate(rate_per_s))
}

/// `256 B`; `100 B to 1.95 KiB, each size equally often`.
pub fn payloads(plan: &Plan) -> String {
    let bytes = |n: u32| format::bytes(f64::from(n));
    let sizes = match &plan.payload_sizes {
        None => bytes(plan.payload_bytes),
        Some(PayloadSizes::Uniform { bytes_min, bytes_max }) => {
            format!("{} to {}, each size equally often", bytes(*bytes_min), bytes(*bytes_max))
        }
        Some(PayloadSizes::Lognormal { bytes_median, bytes_p99 }) => {
            format!("log-normal, median {}, p99 {}", bytes(*bytes_median), bytes(*bytes_p99))
        }
    };
    let Some(replay) = &plan.replay else { return sizes };
    let Some(median) = replay.payload_bytes_median else { return sizes };
    let raised = match replay.payloads_raised {
        0 => String::new(),
        n => format!(", {} raised to the smallest that carries a number", format::count(n)),
    };
    format!("as recorded, median {}{raised}; {sizes} where none is recorded", bytes(median))
}

/// `ingest 90 %, batch of 10 events 10 %`.
pub fn operations(plan: &Plan) -> String {
    let Mix { ingest, batch, inbox, ack } = plan.mix;
    let batch_name = format!("batch of {}", format::counted(u64::from(plan.batch_events), "event"));
    let all = [("ingest", ingest), (batch_name.as_str(), batch), ("inbox", inbox), ("ack", ack)];
    let asked = all.into_iter().filter(|(_, share)| *share > 0.0);
    asked.map(|(name, share)| format!("{name} {}", format::percent(share))).collect::<Vec<_>>().join(", ")
}

/// `HTTP/1.1`; `HTTP/2, 8 streams a connection; certificates trusted from ca.pem`.
pub fn protocol(plan: &Plan) -> String {
    let mut parts = vec![match plan.http {
        HttpVersion::Http1 => "HTTP/1.1".to_owned(),
        HttpVersion::Http2 => {
            format!("HTTP/2, {} a connection", format::counted(u64::from(plan.streams), "stream"))
        }
    }];
    parts.extend(plan.tls_ca.iter().map(|file| format!("certificates trusted from {file}")));
    if plan.tls_insecure {
        parts.push("certificates NOT verified: anybody could have answered".to_owned());
    }
    parts.join("; ")
}

/// What sets this plan apart from the usual one, where a reader of the numbers must know it: one sentence each.
pub fn peculiarities(plan: &Plan) -> Vec<String> {
    let mut found = Vec::new();
    let mut tell = |when: bool, what: &str, how: &dyn Fn(&Plan) -> String| {
        if when {
            found.push(format!("{what}: {}", how(plan)));
        }
    };
    tell(plan.shape.is_some() || plan.replay.is_some(), "arrivals", &arrivals);
    let recorded = plan.replay.as_ref().is_some_and(|replay| replay.payload_bytes_median.is_some());
    tell(plan.payload_sizes.is_some() || recorded, "payloads", &payloads);
    tell(plan.mix != Mix::default(), "operations", &operations);
    tell(plan.http != HttpVersion::Http1 || plan.tls_insecure, "protocol", &protocol);
    // For a day, 0 was what `null` is now.
    let nice = plan.sender_nice.unwrap_or(0);
    tell(nice != 0, "generator", &|_| {
        format!(
            "its sending thread went first (niceness {nice}): what shared its processor, a server too, waited for it"
        )
    });
    tell(plan.realtime.is_some_and(Realtime::has_sender), "generator", &|_| {
        "its sending thread went before every other thread of the machine (SCHED_RR)".to_owned()
    });
    tell(plan.realtime.is_some_and(Realtime::has_server), "server", &|_| {
        "the threads of the reference server that answer, and its journal's, went before all others of the machine (SCHED_RR)"
            .to_owned()
    });
    tell(plan.webhooks, "webhooks", &|_| {
        "delivered to a receiver that runs inside of the generator, on this machine".to_owned()
    });
    tell(plan.followed_share.is_some(), "OpenTelemetry", &|plan| {
        let share = format::percent(plan.followed_share.unwrap_or(0.0));
        format!("{share} of the requests were followed, and all carried the header for it: that is in the numbers")
    });
    tell(!plan.faults.is_empty(), "faults of the server, as asked for", &|plan| plan.faults.join(", "));
    found
}

fn ms(n: u64) -> String {
    format::time(n as f64 * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures;

    fn plan(change: impl FnOnce(&mut Plan)) -> Plan {
        let mut plan = fixtures::small().plan;
        change(&mut plan);
        plan
    }

    /// Thin spaces as plain ones, to be read here.
    fn plain(text: &str) -> String {
        text.replace('\u{202f}', " ")
    }

    #[test]
    fn arrivals_say_how_times_are_drawn_and_how_the_rate_changes() {
        let ramp = Shape::Ramp { from_per_s: 100.0, to_per_s: 5_000.0 };
        let steps = Shape::Steps { rates_per_s: vec![1_000.0, 4_000.0] };
        let burst = Shape::Burst { base_per_s: 1_000.0, height_per_s: 1e4, length_ms: 100, every_ms: 1_000 };
        let cases = [
            (plan(|_| {}), "Poisson, 400/s"),
            (plan(|plan| plan.arrivals = Arrivals::Closed), "closed loop"),
            (
                plan(|plan| (plan.arrivals, plan.shape, plan.rate_per_s) = (Arrivals::Constant, Some(ramp), 2_550.0)),
                "constant, ramp from 100/s to 5 000/s, 2 550/s on average",
            ),
            (
                plan(|plan| (plan.shape, plan.rate_per_s) = (Some(steps), 2_500.0)),
                "Poisson, steps of 1 000/s, 4 000/s, 2 500/s on average",
            ),
            (
                plan(|plan| (plan.shape, plan.rate_per_s) = (Some(burst), 1_900.0)),
                "Poisson, 1 000/s with bursts of 10 000/s for 100 ms every 1 s, 1 900/s on average",
            ),
            (
                plan(|plan| plan.replay = Some(replay(1.0))),
                "as recorded in monday.csv: 12 345 events, 400/s on average",
            ),
            (
                plan(|plan| plan.replay = Some(replay(2.5))),
                "as recorded in monday.csv at 2.5 × its speed: 12 345 events, 400/s on average",
            ),
        ];
        for (plan, expected) in cases {
            assert_eq!(plain(&arrivals(&plan)), expected);
        }
    }

    fn replay(speed: f64) -> Replay {
        let file = "monday.csv".to_owned();
        Replay { file, speed, events: 12_345, payload_bytes_median: None, payloads_raised: 0 }
    }

    #[test]
    fn payloads_say_their_sizes() {
        let uniform = PayloadSizes::Uniform { bytes_min: 100, bytes_max: 2_000 };
        let lognormal = PayloadSizes::Lognormal { bytes_median: 256, bytes_p99: 4_096 };
        let recorded = Replay { payload_bytes_median: Some(300), payloads_raised: 7, ..replay(1.0) };
        for (plan, expected) in [
            (plan(|_| {}), "256 B"),
            (plan(|plan| plan.payload_sizes = Some(uniform)), "100 B to 1.95 KiB, each size equally often"),
            (plan(|plan| plan.payload_sizes = Some(lognormal)), "log-normal, median 256 B, p99 4 KiB"),
            (plan(|plan| plan.replay = Some(replay(1.0))), "256 B"),
            (
                plan(|plan| plan.replay = Some(recorded)),
                "as recorded, median 300 B, 7 raised to the smallest that carries a number; 256 B where none is recorded",
            ),
        ] {
            assert_eq!(plain(&payloads(&plan)), expected);
        }
    }

    #[test]
    fn a_reader_is_told_who_went_before_all_others() {
        let told = |realtime| peculiarities(&plan(|plan| plan.realtime = Some(realtime)));
        let (of_sender, of_server) = (told(Realtime::Sender), told(Realtime::Server));
        assert!(
            of_sender[0].starts_with("generator: its sending thread")
                && of_server[0].starts_with("server: the threads of the reference server")
        );
        assert_eq!((of_sender.len(), of_server.len()), (1, 1));
        assert_eq!(told(Realtime::Both), [of_sender, of_server].concat());
    }

    #[test]
    fn only_what_is_peculiar_is_told_beside_the_numbers() {
        assert_eq!(peculiarities(&plan(|_| {})), Vec::<String>::new());
        assert_eq!(peculiarities(&plan(|plan| plan.sender_nice = Some(0))), Vec::<String>::new());
        let peculiar = plan(|plan| {
            plan.mix = Mix { ingest: 0.9, batch: 0.06, inbox: 0.04, ack: 0.0 };
            (plan.http, plan.streams, plan.tls_insecure) = (HttpVersion::Http2, 8, true);
            (plan.sender_nice, plan.realtime) = (Some(-20), Some(Realtime::Server));
            plan.faults = vec!["lose 1%".to_owned(), "stall 100ms".to_owned()];
            plan.replay = Some(replay(1.0));
            plan.payload_sizes = Some(PayloadSizes::Uniform { bytes_min: 100, bytes_max: 300 });
        });
        let told = peculiarities(&peculiar).iter().map(|text| plain(text)).collect::<Vec<_>>().join("\n");
        insta::assert_snapshot!(told, @r"
        arrivals: as recorded in monday.csv: 12 345 events, 400/s on average
        payloads: 100 B to 300 B, each size equally often
        operations: ingest 90 %, batch of 10 events 6 %, inbox 4 %
        protocol: HTTP/2, 8 streams a connection; certificates NOT verified: anybody could have answered
        generator: its sending thread went first (niceness -20): what shared its processor, a server too, waited for it
        server: the threads of the reference server that answer, and its journal's, went before all others of the machine (SCHED_RR)
        faults of the server, as asked for: lose 1%, stall 100ms
        ");
    }
}
