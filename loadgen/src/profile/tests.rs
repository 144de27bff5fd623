//! What a profile says, and what is said of one that is wrong.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::dialect::Statuses;

const MINIMAL: &str = "name = 'x'\n[start]\ncommand = ['./x', '{port}']\n";

fn parse(text: &str) -> Result<Profile, ProfileError> {
    Profile::parse(text, Path::new("targets/x/profile.toml"), Path::new("/targets/x"))
}

#[track_caller]
fn parsed(text: &str) -> Profile {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

/// TOML blocks of the manual that are profiles.
fn examples() -> Vec<String> {
    let manual = include_str!("../../../docs/target-profiles.md");
    let blocks = manual.split("```toml\n").skip(1).filter_map(|block| block.split("```").next());
    blocks.filter(|block| block.contains("name = ")).map(str::to_owned).collect()
}

#[test]
fn what_is_left_out_means_what_the_contract_says() {
    let profile = parsed(MINIMAL);
    assert_eq!(*profile.dialect, Dialect::contract());
    assert_eq!(profile.target_name(), "x");
    assert!(profile.claims("I7") && profile.claims.is_none());
    assert_eq!((profile.persisted, profile.pids, profile.keys), (Persisted::Inbox, Pids::Child, KeySource::Route));
    assert_eq!(profile.url.as_str(), "http://127.0.0.1:{port}");
}

#[test]
fn the_examples_of_the_manual_are_profiles_and_the_full_one_is_all_defaults_where_it_says_so() {
    let [full, old, running] = <[String; 3]>::try_from(examples()).expect("three examples");
    // Keys that go with another choice are shown beside it: those of one choice at a time are a profile.
    let without = |names: &[&str]| {
        let line_is = |line: &str| names.iter().any(|name| line.starts_with(&format!("{name} = ")));
        let mut section = String::new();
        let kept = full.lines().filter(|line| {
            if line.starts_with('[') {
                section = line.split(']').next().unwrap_or_default().trim_start_matches('[').to_owned();
            }
            let name = line.split(" = ").next().unwrap_or_default();
            !(line_is(line) && matches!(section.as_str(), "key" | "database" | "process" | "persisted"))
                || (section == "key" && ["headers"].contains(&name) && !names.contains(&"key.headers"))
        });
        kept.collect::<Vec<_>>().join("\n")
    };
    let plain = parsed(&without(&["values", "command", "environment", "timeout", "file", "url", "query", "headers"]));
    assert_eq!((plain.target_name().as_str(), plain.database), ("python", DatabaseKind::Postgres));
    let dialect = &plain.dialect;
    assert_eq!(dialect.headers, [("x-tenant".to_owned(), "load".to_owned())]);
    let contract = Dialect::contract();
    assert_eq!((&dialect.routes, &dialect.ready.path), (&contract.routes, &contract.ready.path));
    assert_eq!((&dialect.key.path, &dialect.key_header), (&contract.key.path, &contract.key_header));
    assert_eq!(dialect.ingest.statuses, contract.ingest.statuses);

    let old = parsed(&old);
    assert_eq!((old.target_name().as_str(), old.claims("A2"), old.claims("I1")), ("legacy/2-workers", true, false));
    let ingest = &old.dialect.ingest;
    assert_eq!(ingest.statuses, Statuses::OneOf(vec![200, 201]));
    assert_eq!((ingest.ids_match, old.dialect.routes.inbox.as_deref()), (false, None));
    assert_eq!(old.dialect.headers_with("k"), [("x-api-key".to_owned(), "k".to_owned())]);
    assert!(matches!(old.persisted, Persisted::Sql(_)) && old.stop_signal == Signal::INT);

    let running = parsed(&running);
    assert_eq!((running.start, running.keys), (None, KeySource::Static(vec![Text::new("{env.STAGING_KEY}")])));
    assert_eq!(running.database, DatabaseKind::Existing(Text::new("{env.STAGING_DATABASE_URL}")));
}

/// What follows [`MINIMAL`], and what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    // TOML, and keys that nobody knows.
    ("[stop", "line 4: is not TOML: "),
    ("[ingets]\npath = '/x'", "line 4: ingets is no key of a profile; did you mean ingest?"),
    ("[http]\n\nheader = {}", "line 6: [http] header is no key of a profile; did you mean headers?"),
    (
        "[ready]\nmood = 'good'",
        "line 5: [ready] mood is no key of a profile; leave it out; known here: path, status, timeout",
    ),
    ("[ingest]\npath = 3", "line 5: [ingest] path = 3: is not a text in quotes; write it like that, or leave it out"),
    ("ingest = 3", "line 4: [start] ingest is no key of a profile"),
    ("[persisted.query]\na = 1", "line 4: [persisted] query = { … }: is not a text in quotes"),
    // Values.
    ("[ready]\ntimeout = '1h'", "[ready] timeout = \"1h\": is not a length of time from 100ms to 10m, such as \"30s\""),
    (
        "[ready]\nstatus = [200, 99]",
        "[ready] status = [200, 99]: is not an HTTP status from 100 to 599, or a list of such",
    ),
    ("[ingest]\nstatus = 404", "[ingest] status = 404: is not an HTTP status from 200 to 299"),
    ("[ingest]\nstatus = []", "[ingest] status = []: is not an HTTP status"),
    ("[ingest]\nids_match = 'no'", "[ingest] ids_match = \"no\": is not true or false"),
    ("[ingest]\nmethod = 'GET'", "[ingest] method = \"GET\": is not one of \"POST\", \"PUT\""),
    ("[stop]\nsignal = 'SIGTERM'", "[stop] signal = \"SIGTERM\": is not one of \"TERM\", \"INT\""),
    (
        "[database]\nkind = 'mysql'",
        "[database] kind = \"mysql\": is not one of \"postgres\", \"sqlite\", \"any\", \"none\"",
    ),
    ("[ingest]\npath = 'api'", "[ingest] path = \"api\": is no path; begin it with a slash"),
    (
        "[ingest]\nid = 'id'",
        "[ingest] id = \"id\": is no JSON pointer: it begins with a slash; write it like \"/data/id\", or \"none\"",
    ),
    ("[routes]\nevent = '/e'", "[routes] event = \"/e\": has to have {id} once; write it where the id goes"),
    ("[routes]\ninbox = '/e/{id}'", "[routes] inbox = \"/e/{id}\": has a placeholder"),
    // Bodies, headers, placeholders.
    (
        "[ingest]\nbody = '{}'",
        "[ingest] body has no {payload}, without which no event can be recognised; write it like",
    ),
    ("[ingest]\nbody = '{\"a\":\"{payload}\"}'", "[ingest] body is not JSON once filled in"),
    (
        "[ingest]\nbody = '{\"a\":{payload},\"b\":\"{dedup}\"}'",
        "[ingest] body has {dedup}, which stands for nothing here; use one of {payload} {dedup_id} {sequence}",
    ),
    ("[key]\nbody = '{\"name\": {organization}}'", "[key] body is not JSON: "),
    (
        "[key]\nheader = 'X-API-Key'",
        "[key] header = \"X-API-Key\": is no header line with {key} in it; write it like \"X-API-Key: {key}\"",
    ),
    (
        "[http]\nheaders = { Content-Type = 'text/plain' }",
        "[http] headers has content-type, which loadgen writes itself; leave it out",
    ),
    ("[http]\nheaders = { 'X Y' = 'z' }", "[http] headers has \"x y\", which is no name of a header"),
    ("[http]\nheaders = { X = \"a\\u0007\" }", "which is no value of a header; use visible ASCII and spaces"),
    (
        "[ingest]\nheaders = { Idempotency-Key = '{dedup_id}' }",
        "[ingest] headers has {dedup_id} in idempotency-key, and all requests have the same headers; a key goes into",
    ),
    (
        "[setup]\ncommand = ['a', '{prot}']",
        "[setup] command has {prot}, which stands for nothing here; did you mean {port}?",
    ),
    (
        "[setup]\ncommand = ['a', '{database_url}']",
        "[setup] command has {database_url}, which stands for nothing here; say with [database] kind which one it has",
    ),
    (
        "[prepare]\ncommand = ['a', '{port}']",
        "[prepare] command has {port}, which stands for nothing here; use one of {profile} {loadgen}",
    ),
    ("[setup]\ntimeout = '5s'", "line 4: [setup] command is missing; write command = [\"program\", \"argument\"]"),
    ("[http]\nurl = '127.0.0.1:{port}'", "[http] url = \"127.0.0.1:{port}\": is no http(s) URL"),
    // What does not go together.
    ("[key]\nsource = 'static'", "line 4: [key] values is missing; write values = [\"KEY\"]"),
    (
        "[key]\nvalues = ['k']",
        "[key] values goes with source = \"static\", and this is \"route\"; leave it out, or change the source",
    ),
    ("[key]\nsource = 'none'\npath = '/k'", "line 6: [key] path goes with source = \"route\", and this is \"none\""),
    ("[database]\nkind = 'postgres'\nfile = 'x'", "line 6: [database] file is for kind = \"sqlite\" or \"any\""),
    ("[database]\nkind = 'sqlite'\nurl = 'x'", "line 6: [database] url is for kind = \"postgres\""),
    ("[persisted]\nsource = 'sql'", "line 4: [persisted] query is missing"),
    ("[persisted]\nquery = 'SELECT 1'", "line 4: [persisted] source = \"sql\": says nothing of which database"),
    (
        "[persisted]\nsource = 'none'\nquery = 'SELECT 1'",
        "[persisted] query goes with source = \"sql\", and this is \"none\"",
    ),
    (
        "[database]\nkind = 'sqlite'\n[persisted]\nquery = 'DELETE FROM t'",
        "[persisted] query does not begin with SELECT or WITH",
    ),
    ("[database]\nkind = 'sqlite'\n[persisted]\nquery = 'SELECT 1;'", "[persisted] query ends with a semicolon"),
    ("[routes]\ninbox = 'none'", "[persisted] source = \"inbox\": [routes] says that there is none"),
    ("[process]\npids = 'file'", "line 5: [process] file is missing"),
    ("[process]\nfile = 'x'", "[process] file goes with pids = \"file\", and this is \"child\""),
];

#[test]
fn every_mistake_is_shown_with_its_line_what_is_allowed_and_what_to_do() {
    for (more, expected) in MISTAKES {
        let error = parse(&format!("{MINIMAL}{more}")).map(drop).expect_err(more).to_string();
        assert!(
            error.starts_with("the profile targets/x/profile.toml is not valid:\n  targets/x/profile.toml, line "),
            "{error}"
        );
        assert!(error.contains(expected), "{more}\n  should say {expected:?}:\n  {error}");
    }
}

#[test]
fn mistakes_at_the_top_are_shown_too_and_all_at_once() {
    for (text, expected) in [
        ("", vec!["line 1: name is missing", "line 1: [http] url is missing, and there is no [start]"]),
        ("name = 'My Server'\n[http]\nurl = 'http://h'", vec!["line 1: name = \"My Server\": allowed: a-z, 0-9"]),
        (
            "name = 'x'\nclaims = ['I9', 'A1']\n[http]\nurl = 'http://h'",
            vec!["line 2: claims \"I9\" is no rule of the contract; there are: A1, A2"],
        ),
        (
            "name = 'x'\n[http]\nurl = 'http://127.0.0.1:{port}'",
            vec!["line 3: [http] url has {port}, which stands for nothing here"],
        ),
        (
            "name = 'x'\n[http]\nurl = 'http://h'\n[process]\npids = 'child'",
            vec!["line 5: [process] pids = \"child\": there is no [start]"],
        ),
        (
            "name = 3\nlable = 'a'\n[start]\ncommand = []\n[stop]\ntimeout = 3",
            vec![
                "line 1: name = 3: is not a text",
                "line 2: lable is no key of a profile; did you mean label?",
                "line 4: [start] command = []: is not a list of texts",
                "line 6: [stop] timeout = 3: is not a length of time",
            ],
        ),
    ] {
        let ProfileError::Invalid { mistakes, .. } = parse(text).expect_err(text) else { panic!("{text}") };
        let shown: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
        assert_eq!(shown.len(), expected.len(), "{text}: {shown:#?}");
        for (shown, expected) in shown.iter().zip(expected) {
            assert!(shown.starts_with(expected), "{text}: {shown}");
        }
    }
}

#[test]
fn a_profile_is_found_by_its_folder_and_one_that_is_not_there_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let error = Profile::load(folder.path()).expect_err("no file").to_string();
    assert!(
        error.contains("profile.toml: No such file") && error.contains("give a profile's file, or a folder"),
        "{error}"
    );
    std::fs::write(folder.path().join(FILE_NAME), MINIMAL).expect("a file");
    let profile = Profile::load(folder.path()).expect("a profile");
    assert_eq!(profile.folder, folder.path());
}

#[test]
fn a_label_makes_another_target_of_the_same_implementation() {
    for (label, name) in [("", "x"), ("label = 'default'\n", "x"), ("label = 'tuned'\n", "x/tuned")] {
        let profile = parsed(&format!("{label}{MINIMAL}"));
        assert_eq!(profile.target_name(), name);
        assert_eq!(profile.variant().profile.map(|profile| profile.name), Some("x".to_owned()));
    }
}

proptest! {
    /// Whatever stands in a file, it is a profile or there is a line of it to look at.
    #[test]
    fn no_text_makes_the_reader_panic_and_every_mistake_has_a_line_of_the_file(
        lines in prop::collection::vec(prop_oneof![
            Just("[key]"), Just("[ingest]"), Just("[persisted]"), Just("[database]"), Just("[http]"), Just("[process]"),
            Just("source = 'sql'"), Just("source = 'static'"), Just("query = 'SELECT {x}'"), Just("kind = 'any'"),
            Just("url = '{env.X}'"), Just("body = '{payload}'"), Just("status = [1, 'a']"), Just("values = [1]"),
            Just("headers = { a = 1 }"), Just("pids = 'command'"), Just("command = ['{a}', '{']"), Just("name = 'x'"),
            Just("id = ''"), Just("path = '/{'"), Just("x = 1979-05-27"), Just("}"), Just("ä = \"\u{fc}"),
        ], 0..12)
    ) {
        let text = lines.join("\n");
        if let Err(ProfileError::Invalid { mistakes, .. }) = parse(&text) {
            let count = lines.len().max(1);
            prop_assert!(!mistakes.is_empty() && mistakes.iter().all(|m| (1..=count).contains(&m.line)), "{mistakes:?}");
        }
    }
}
