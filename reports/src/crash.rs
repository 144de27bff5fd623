//! What an acknowledgement promises when its server is killed, and what a test with kills says of that promise.

use crate::format;
use crate::model::{CrashTest, KillKind};

/// Whether an acknowledgement of this durability (as it names itself) has to survive such a kill. Only one that says that it is not
/// written down, or not synced, is let off: a word that nobody knows is taken for a promise.
pub fn promises(durability: Option<&str>, kill: KillKind) -> bool {
    match durability {
        Some("memory") => false,
        // In another process, and not synced when it is said.
        Some("journal-os" | "redis-memory" | "redis-os" | "redis-everysec") => kill == KillKind::Process,
        _ => true,
    }
}

/// Whether losses break what this server promised.
pub fn must_keep(test: &CrashTest) -> bool {
    !test.losses_expected && promises(test.durability.as_deref(), test.kill)
}

/// What the server did that it must not, as a sentence.
pub fn fault(test: &CrashTest) -> Option<String> {
    let of = format!("of {}", format::counted(test.acknowledged, "acknowledged event"));
    let mut faults = Vec::new();
    let mut add = |n: u64, what: &str| {
        if n > 0 {
            faults.push(format!("{} {what}", format::count(n)));
        }
    };
    if must_keep(test) {
        add(test.lost, "lost");
    }
    if !test.losses_expected {
        add(test.duplicated, "duplicated");
        add(test.altered, "altered");
    }
    let counted = (!faults.is_empty()).then(|| format!("{of} {}", faults.join(", ")));
    let stopped = test.server_failure.as_ref().filter(|_| !test.losses_expected);
    let stopped = stopped
        .map(|why| format!("it could not go on after {}: {why}", format::counted(test.kills.len() as u64, "kill")));
    let sentences: Vec<String> = counted.into_iter().chain(stopped).collect();
    (!sentences.is_empty()).then(|| format!("{}: {}", test.name, sentences.join("; ")))
}

/// Why the test says nothing about the server, as a sentence.
pub fn said_nothing(test: &CrashTest) -> Option<String> {
    let why = match &test.failure {
        Some(failure) => failure.clone(),
        None if test.kills.is_empty() && test.server_failure.is_none() => "nothing was killed".to_owned(),
        None if test.acknowledged == 0 => {
            "nothing was acknowledged before the kills, so nothing could be lost".to_owned()
        }
        None => return None,
    };
    Some(format!("{}: {why}", test.name))
}

/// What leaves it open, as a sentence.
pub fn open(test: &CrashTest) -> Option<String> {
    let found = test.lost + test.duplicated + test.altered > 0 || test.server_failure.is_some();
    if test.losses_expected && !found {
        return Some(format!(
            "{}: losses were expected and none was found, so this test could not show anything: its kills come too late after the \
             writes, or there are too few",
            test.name
        ));
    }
    let of = format::counted(test.acknowledged, "acknowledged event");
    (test.unverified > 0)
        .then(|| format!("{}: {} of {of} could not be asked for", test.name, format::count(test.unverified)))
}

/// How a server was killed, in words.
pub fn kind(kill: KillKind) -> &'static str {
    match kill {
        KillKind::Process => "SIGKILL to the server's process",
        KillKind::Power => "the power of the disk under its data cut",
    }
}

/// The test in one sentence.
pub fn sentence(test: &CrashTest) -> String {
    let cut = match test.kill {
        KillKind::Process => "killed",
        KillKind::Power => "cut off its power",
    };
    let times = format::counted(test.kills.len() as u64, "time");
    let acknowledged = format::counted(test.acknowledged, "acknowledged event");
    let age = match test.lost_age.count {
        0 => String::new(),
        _ => format!(
            ", acknowledged up to {} before the kill (p50 {})",
            format::time_ns(test.lost_age.max_ns),
            format::time_ns(test.lost_age.p50_ns)
        ),
    };
    let why = match (test.losses_expected, test.lost > 0, promises(test.durability.as_deref(), test.kill)) {
        (true, ..) => ": it was made to lose, and the losses were found",
        (_, _, false) => ": its acknowledgements promise no more",
        _ => "",
    };
    format!(
        "{}: {cut} {times}, {acknowledged}, {} lost{age}, {} duplicated, {} altered{why}",
        test.name,
        format::count(test.lost),
        format::count(test.duplicated),
        format::count(test.altered)
    )
}

/// What a store says of its durability, in one line.
pub fn settings(test: &CrashTest) -> String {
    let claims = test.durability.as_deref().map(|word| format!("acknowledges \"{word}\""));
    let filesystem = test.filesystem.as_ref().map(|name| format!("on {name}"));
    let settings = test.settings.iter().map(|setting| format!("{} = {}", setting.name, setting.value));
    let parts: Vec<String> =
        claims.into_iter().chain([test.database.clone()]).chain(filesystem).chain(settings).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::crash_test;

    #[test]
    fn only_what_says_that_it_is_not_written_down_or_not_synced_may_be_lost() {
        use KillKind::{Power, Process};
        for (durability, by_process, by_power) in [
            (Some("memory"), false, false),
            (Some("journal-os"), true, false),
            (Some("journal"), true, true),
            (Some("database"), true, true),
            (Some("redis-memory"), true, false),
            (Some("redis-os"), true, false),
            (Some("redis-everysec"), true, false),
            (Some("redis-always"), true, true),
            (Some("a word of tomorrow"), true, true),
            (None, true, true),
        ] {
            let promised = (promises(durability, Process), promises(durability, Power));
            assert_eq!(promised, (by_process, by_power), "{durability:?}");
        }
    }

    #[test]
    fn a_double_is_a_fault_even_where_losing_is_allowed() {
        let mut test = crash_test("cache-first on sqlite", KillKind::Process, "memory", &[3]);
        assert_eq!(fault(&test), None);
        test.duplicated = 1;
        assert_eq!(fault(&test).as_deref(), Some("cache-first on sqlite: of 300 acknowledged events 1 duplicated"));
    }

    #[test]
    fn a_server_made_to_lose_has_to() {
        let mutant = |lost| CrashTest {
            losses_expected: true,
            ..crash_test("db-first on sqlite", KillKind::Power, "database", &[lost])
        };
        assert_eq!((fault(&mutant(2)), open(&mutant(2))), (None, None));
        assert!(open(&mutant(0)).is_some_and(|why| why.contains("could not show anything")));
        let dead = CrashTest { server_failure: Some("malformed".to_owned()), ..mutant(0) };
        assert_eq!((fault(&dead), open(&dead)), (None, None), "a store that is broken for good is a loss, too");
    }

    #[test]
    fn a_server_that_cannot_go_on_has_failed() {
        let test = CrashTest {
            server_failure: Some("it ended with 1".to_owned()),
            ..crash_test("db-first on sqlite", KillKind::Power, "database", &[0])
        };
        assert!(fault(&test).is_some_and(|why| why.ends_with("it could not go on after 1 kill: it ended with 1")));
    }

    #[test]
    fn without_an_acknowledgement_nothing_is_said() {
        let mut test = crash_test("db-first on sqlite", KillKind::Process, "database", &[0]);
        assert_eq!(said_nothing(&test), None);
        test.acknowledged = 0;
        assert!(said_nothing(&test).is_some_and(|why| why.contains("nothing was acknowledged")));
    }
}
