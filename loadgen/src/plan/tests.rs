//! Tests of what a plan becomes, and of what is refused.

use std::path::Path;

use clap::Parser;
use reports::model::{HttpVersion, Mix, PayloadSizes, Shape};

use super::*;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    asked: Asked,
}

fn flags(arguments: &[&str]) -> Asked {
    Flags::parse_from([&["loadgen"], arguments].concat()).asked
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|&text| text.to_owned()).collect()
}

fn resolve(asked: Asked) -> Result<Resolved, PlanError> {
    asked.resolve(&strings(&["null", "cache-first", "db-first"]), &strings(&["fixed", "adaptive", "wake"]))
}

fn names(asked: Asked) -> Vec<String> {
    resolve(asked).expect("a plan").plan.variants.into_iter().map(|variant| variant.name).collect()
}

#[test]
fn built_in_plans_resolve_and_the_default_one_writes_the_defaults_out() {
    for (name, _) in BUILT_IN {
        resolve(Asked::built_in(name).expect(name)).expect(name);
    }
    let written = resolve(Asked::built_in("default").expect("a plan")).expect("a plan").plan;
    assert_eq!(written, resolve(Asked::default()).expect("a plan").plan);
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = Asked::from_toml("rate = 50.0\nconnections = 7", Path::new("x.toml")).expect("a plan");
    let plan = resolve(flags(&["--rate", "20"]).over(file)).expect("a plan").plan;
    assert_eq!((plan.rate_per_s, plan.connections, plan.payload_bytes), (20.0, 7, 256));
}

#[test]
fn variants_are_modes_times_policies_with_null_once() {
    assert_eq!(names(flags(&[])), ["null", "cache-first", "db-first"]);
    assert_eq!(
        names(flags(&["--mode", "null,cache-first", "--polling", "adaptive,wake"])),
        ["null", "cache-first/adaptive", "cache-first/wake"]
    );
    assert_eq!(
        names(flags(&["--mode", "db-first"]).over(Asked::built_in("before-after").expect("a plan"))),
        ["db-first"]
    );
}

#[test]
fn a_running_target_takes_the_place_of_the_plans_modes() {
    let base = Asked::built_in("default").expect("a plan");
    let resolved = resolve(flags(&["--target", "http://127.0.0.1:1/"]).over(base)).expect("a plan");
    assert_eq!(resolved.plan.variants[0].name, "127.0.0.1:1");
    assert_eq!(resolved.plan.database, None);
}

fn plan(arguments: &[&str]) -> model::Plan {
    resolve(flags(arguments)).unwrap_or_else(|error| panic!("{arguments:?}: {error}")).plan
}

#[track_caller]
fn assert_refused(arguments: &[&str], expected: &str) {
    // As `loadgen run` does it: flags over the built-in plan, which writes every default out.
    let asked = flags(arguments).over(Asked::built_in("default").expect("a plan"));
    match resolve(asked) {
        Ok(resolved) => panic!("{arguments:?} was accepted: {:?}", resolved.plan),
        Err(error) => assert_eq!(error.to_string(), expected, "{arguments:?}"),
    }
}

/// A file in a folder of its own, which goes with the returned guard.
fn file(name: &str, text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    std::fs::write(&path, text).expect("a file");
    (folder, path.display().to_string())
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n";

#[test]
fn values_out_of_range_are_refused_with_key_value_range_and_remedy() {
    for (key, value, shown, allowed) in [
        ("--rate", "0", "0", "0.1 to 200000 events/s"),
        ("--rate", "NaN", "NaN", "0.1 to 200000 events/s"),
        ("--connections", "0", "0", "1 to 10000 connections"),
        ("--payload-bytes", "3", "3", "37 to 262144 bytes"),
        ("--payload-bytes", "36..100", "36", "37 to 262144 bytes"),
        ("--payload-bytes", "100..262145", "262145", "37 to 262144 bytes"),
        ("--payload-bytes", "lognormal 256 p99 1000000", "1000000", "37 to 262144 bytes"),
        ("--duration", "1ms", "1", "100 to 86400000 ms"),
        ("--batch-events", "0", "0", "1 to 1000 events"),
        ("--batch-events", "1001", "1001", "1 to 1000 events"),
        ("--streams", "1001", "1001", "1 to 1000 streams"),
        ("--organizations", "10001", "10001", "1 to 10000 organisations"),
    ] {
        let expected = format!("{key} = {shown}: is out of range; allowed: {allowed}; choose a value in that range");
        assert_refused(&[key, value], &expected);
    }
}

#[test]
fn targets_that_cannot_be_driven_are_refused_with_the_remedy() {
    let one = "leave one of the two out";
    let owned = "is of the reference server, and does not go with --target";
    let no_target = "is no target; give http://HOST:PORT, https://HOST:PORT, or a target profile (a TOML file, or the folder of one)";
    let no_https = "is about https, and no target is; leave it out, or give --target https://HOST:PORT";
    let twice = "is there twice, and results are found by name; leave one out; --repeat 2 measures it twice";
    let (http, https) = (["--target", "http://h:1"], ["--target", "https://h"]);
    let pem = ["--tls-ca", "/no/ca.pem"];
    for (arguments, expected) in [
        ([&http[..], &["--mode", "null"]].concat(), format!("--mode = null: {owned}; {one}")),
        ([&http[..], &["--fault", "lose 1%"]].concat(), format!("--fault = lose 1%: {owned}; {one}")),
        (vec!["--target", "ftp://h"], format!("--target = ftp://h: {no_target}")),
        (vec!["--target", "h:80"], format!("--target = h:80: {no_target}")),
        (
            vec!["--target", "http://me:secret@h"],
            "--target = ***: holds a name or a password, which the result would show; use --api-key".to_owned(),
        ),
        ([&http[..], &["--target", "http://h:1/"]].concat(), format!("--target = http://h:1/: {twice}")),
        (vec!["--tls-insecure"], format!("--tls-insecure = true: {no_https}")),
        ([&http[..], &pem].concat(), format!("--tls-ca = /no/ca.pem: {no_https}")),
        (
            [&https[..], &pem, &["--tls-insecure"]].concat(),
            format!("--tls-ca = /no/ca.pem: does not go with --tls-insecure, which verifies nothing; {one}"),
        ),
        (
            [&https[..], &pem].concat(),
            "--tls-ca = /no/ca.pem: No such file or directory (os error 2); give a file that can be read".to_owned(),
        ),
    ] {
        assert_refused(&arguments, &expected);
    }
}

#[test]
fn what_is_unknown_or_does_not_go_together_is_refused_with_the_remedy() {
    for (arguments, expected) in [
        (
            vec!["--mode", "fast"],
            "--mode = fast: is unknown; allowed: null, cache-first, db-first; choose one or more of these, separated by commas",
        ),
        (
            vec!["--database", "mysql://me:hunter2@x"],
            "--database = mysql: is no database that the reference server can be started on; give sqlite (a file in a \
             temporary folder) or postgres://USER@HOST:PORT/NAME",
        ),
        (
            vec!["--streams", "2"],
            "--streams = 2: HTTP/1.1 carries one request at a time on a connection; add --http 2, or use more --connections",
        ),
        (
            vec!["--payload-bytes", "200..100"],
            "--payload-bytes = 200..100: ends before it begins; write the smaller one first",
        ),
        (
            vec!["--payload-bytes", "lognormal 200 p99 100"],
            "--payload-bytes = 200..100: has a p99 below its median; write the smaller one first",
        ),
        (
            vec!["--mix", "batch 1", "--batch-events", "17", "--payload-bytes", "262144"],
            "--batch-events = 17: with payloads as large as they can be here, a batch would be larger than 4194304 bytes; allowed: \
             15 events; send fewer in one batch, or smaller payloads",
        ),
        (
            vec!["--webhooks", "--no-ledger"],
            "--webhooks = true: does not go with --no-ledger: what is delivered is compared with what was acknowledged; leave one of \
             the two out",
        ),
        (
            vec!["--target", "http://h", "--webhooks", "--api-key", "k"],
            "--webhooks = true: does not go with keys of organisations that are there already: it would replace their webhook; leave \
             one of the two out",
        ),
        (
            vec!["--api-key", "k", "--organizations", "2"],
            "--organizations = 2: does not go with --api-key (or LOADGEN_API_KEY), which is the key of one; give the keys of all with \
             --keys-file",
        ),
        (
            vec!["--replay-speed", "2"],
            "--replay-speed = 2: is how fast a recording is sent, and there is none; give --replay FILE.csv",
        ),
    ] {
        assert_refused(&arguments, expected);
    }
}

#[test]
fn shapes_that_cannot_be_offered_are_refused() {
    let one = "leave one of the two out";
    let out_of_range =
        |rate| format!("the rate {rate} is out of range; allowed: 0 to 200000 events/s; choose rates in that range");
    for (shape, more, problem) in [
        ("ramp 1..200001", vec![], out_of_range("200001")),
        ("ramp -1..5", vec![], out_of_range("-1")),
        ("steps 1,NaN", vec![], out_of_range("NaN")),
        ("burst inf for 1ms every 1s", vec![], out_of_range("inf")),
        ("ramp 0..0", vec![], "none of its rates is 0.1 events/s or more; choose a higher one".to_owned()),
        ("steps 0,0.05", vec![], "none of its rates is 0.1 events/s or more; choose a higher one".to_owned()),
        ("steps 1,2,3", vec!["--duration", "299ms"], "3 steps in 299 ms are less than 100 ms each; give a longer --duration".to_owned()),
        ("burst 9 for 500us every 1s", vec![], "its times are no whole milliseconds, 1 ms or more; choose such times".to_owned()),
        ("burst 9 for 0s every 1s", vec![], "its times are no whole milliseconds, 1 ms or more; choose such times".to_owned()),
        ("burst 9 for 1s every 1s", vec![], "the burst is as long as its period, or longer; make it shorter, or come less often".to_owned()),
        (
            "burst 9 for 1s every 13s",
            vec![],
            "its period is longer than the steady phase of 12000 ms; give a longer --duration, or let it come more often".to_owned(),
        ),
        ("ramp 1..2", vec!["--rate", "5"], format!("does not go with --rate 5: it has rates of its own; {one}")),
        ("steps 1,2", vec!["--rate", "5"], format!("does not go with --rate 5: it has rates of its own; {one}")),
        ("ramp 1..2", vec!["--arrivals", "closed"], format!("does not go with --arrivals closed, which has no rate; {one}")),
        ("burst 9 for 1ms every 1s", vec!["--arrivals", "closed"], format!("does not go with --arrivals closed, which has no rate; {one}")),
    ] {
        let asked = format!("--shape={shape}");
        assert_refused(&[&[asked.as_str()], &more[..]].concat(), &format!("--shape = {shape}: {problem}"));
    }
    let many = format!("--shape=steps {}", vec!["1"; 1_001].join(","));
    let message = resolve(flags(&[&many])).expect_err("too many steps").to_string();
    assert!(message.ends_with("has 1001 steps; allowed: 1000; leave some out"), "{message}");
}

#[test]
fn a_shape_becomes_part_of_the_plan_with_its_mean_rate() {
    let burst = Shape::Burst { base_per_s: 50.0, height_per_s: 1_050.0, length_ms: 100, every_ms: 1_000 };
    for (arguments, rate_per_s, shape) in [
        (vec!["--shape", "constant", "--rate", "7"], 7.0, None),
        (vec!["--shape", "ramp 0..500"], 250.0, Some(Shape::Ramp { from_per_s: 0.0, to_per_s: 500.0 })),
        (vec!["--shape", "steps 10,20,60"], 30.0, Some(Shape::Steps { rates_per_s: vec![10.0, 20.0, 60.0] })),
        (
            vec!["--shape", "steps 10,20,60 mirrored"],
            24.0,
            Some(Shape::Steps { rates_per_s: vec![10.0, 20.0, 60.0, 20.0, 10.0] }),
        ),
        (vec!["--shape", "burst 1050 for 100ms every 1s", "--rate", "50"], 150.0, Some(burst)),
        (vec!["--arrivals", "closed", "--shape", "constant"], 0.0, None),
    ] {
        let plan = plan(&arguments);
        assert_eq!(plan.shape, shape, "{arguments:?}");
        assert!((plan.rate_per_s - rate_per_s).abs() < 1e-9, "{arguments:?}: {}", plan.rate_per_s);
    }
}

#[test]
fn the_seed_decides_the_order_of_shuffled_steps() {
    let rates = |more: &[&str]| {
        let arguments = [&["--shape", "steps 1,2,3,4,5,6,7,8 shuffled"], more].concat();
        match plan(&arguments).shape {
            Some(Shape::Steps { rates_per_s }) => rates_per_s,
            other => panic!("{other:?}"),
        }
    };
    let shuffled = rates(&[]);
    let mut sorted = shuffled.clone();
    sorted.sort_by(f64::total_cmp);
    assert_eq!(sorted, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_ne!(shuffled, sorted);
    assert_eq!(shuffled, rates(&["--seed", "1"]));
    assert_ne!(shuffled, rates(&["--seed", "2"]));
}

#[test]
fn a_flag_displaces_what_the_file_says_in_another_way() {
    let (_folder, replay) = file("r.csv", "offset_s\n0\n1\n");
    let (_folder, keys) = file("keys", "a\nb\nc\n");
    let over = |arguments: &[&str], toml: &str| {
        resolve(flags(arguments).over(Asked::from_toml(toml, Path::new("p.toml")).expect(toml)))
    };
    let ramped = over(&["--shape", "ramp 1..2"], "rate = 50.0").expect("a ramp").plan;
    assert_eq!(ramped.rate_per_s, 1.5);
    let level = over(&["--shape", "constant"], "shape = 'burst 9 for 1ms every 1s'\nrate = 50.0").expect("a rate").plan;
    assert_eq!((level.shape, level.rate_per_s), (None, 50.0));
    let replayed = over(&["--replay", &replay], "rate = 50.0\nduration = '5s'\nshape = 'ramp 1..2'").expect("a replay");
    assert_eq!((replayed.plan.duration_ms, replayed.plan.shape), (1_001, None));
    let target = "target = ['http://h']";
    let keyed = over(&["--keys-file", &keys], &format!("organizations = 9\napi_key = 'k'\n{target}")).expect("keys");
    assert_eq!((keyed.plan.organizations, keyed.keys.len()), (3, 3));
    let plain = over(&["--http", "1.1"], "http = '2'\nstreams = 8").expect("HTTP/1.1").plan;
    assert_eq!((plain.http, plain.streams), (HttpVersion::Http1, 1));
    let foreign = over(&["--target", "http://h"], "fault = ['lose 1%']\nmode = ['null']").expect("a target").plan;
    assert_eq!(foreign.faults, Vec::<String>::new());
    // What cannot be told apart is not guessed.
    let error = over(&["--rate", "20"], "shape = 'ramp 1..2'").expect_err("two rates").to_string();
    assert!(error.contains("does not go with --rate 20"), "{error}");
    let error = over(&["--duration", "20s"], &format!("replay = '{replay}'")).expect_err("two lengths").to_string();
    assert!(error.contains("does not go with --duration 20s: the recording says when events are due"), "{error}");
}

#[test]
fn a_recording_gives_length_rate_and_sizes() {
    let (_folder, path) = file("r.csv", "offset_ms,payload_bytes\n0,5\n100,400\n1999.5,900\n");
    let resolved = resolve(flags(&["--replay", &path, "--replay-speed", "0.5"])).expect("a replay");
    let plan = &resolved.plan;
    assert_eq!((plan.duration_ms, plan.payload_bytes), (4_000, 256));
    assert_eq!(plan.rate_per_s, 0.75);
    let replay = plan.replay.as_ref().expect("a replay");
    assert_eq!((replay.file.as_str(), replay.speed, replay.events), (path.as_str(), 0.5, 3));
    assert_eq!((replay.payload_bytes_median, replay.payloads_raised), (Some(400), 1));
    // Three events of the warm-up at 0.75/s, in 3 s, come first.
    let first = resolved.schedule().warmup_events(1);
    let sizes = resolved.payload_sizes(1);
    let all: Vec<u32> = (0..first + 4).map(|sequence| sizes.bytes(sequence, 1)).collect();
    assert_eq!(all[first as usize..], [37, 400, 900, 256]);
    assert!(all[..first as usize].iter().all(|&bytes| bytes == 256));
}

#[test]
fn recordings_that_cannot_be_replayed_are_refused() {
    let (_folder, path) = file("r.csv", "offset_ms\n0\n50\n");
    let (_folder, dense) = file("dense.csv", &format!("offset_ms\n{}101\n", "5\n".repeat(30_000)));
    let (_folder, bad) = file("bad.csv", "offset_ms\n5\n4\n");
    let (_folder, good) = file("good.csv", "offset_s\n0\n3\n");
    for (path, more, expected) in [
        (&path, vec![], "lasts 51 ms; a steady phase is at least 100 ms long; slow it down with --replay-speed"),
        (&dense, vec![], "has 294127 events/s on average; allowed: 200000; slow it down with --replay-speed"),
        (
            &good,
            vec!["--rate", "5"],
            "does not go with --rate 5: the recording says when events are due; leave one of the two out",
        ),
        (
            &good,
            vec!["--shape", "ramp 1..2"],
            "does not go with --shape 'ramp 1..2': the recording says when events are due; leave one",
        ),
        (
            &good,
            vec!["--duration", "5s"],
            "does not go with --duration 5s: the recording says when events are due; leave one",
        ),
        (
            &good,
            vec!["--arrivals", "closed"],
            "does not go with --arrivals closed: the recording says when events are due",
        ),
        (
            &good,
            vec!["--replay-speed", "0"],
            "--replay-speed = 0: is out of range; allowed: 0.001 to 1000 times as fast",
        ),
        (&bad, vec![], "bad.csv, line 3: offset_ms is '4': it is earlier than the row before it"),
    ] {
        let arguments = [&["--replay", path.as_str()], &more[..]].concat();
        let message = resolve(flags(&arguments)).expect_err(expected).to_string();
        assert!(message.contains(expected) && message.starts_with("--replay"), "{arguments:?}: {message}");
    }
}

#[test]
fn keys_come_from_a_file_and_only_their_number_is_in_the_plan() {
    let url = ["--target", "http://h"];
    let (_folder, path) = file("keys", "# of the test system\nmr_live_a\n\n  mr_live_b  \r\n");
    let resolved = resolve(flags(&[&url[..], &["--keys-file", &path]].concat())).expect("keys");
    assert_eq!(resolved.keys, ["mr_live_a", "mr_live_b"]);
    assert_eq!(resolved.plan.organizations, 2);
    assert!(!reports::plan::peculiarities(&resolved.plan).join("").contains("mr_live"));
    for (text, expected) in [
        ("", "has no keys; write one key a line"),
        ("a\nb c\n", "line 2 is no key: it has a space or a special character; write one key a line"),
        ("secret\n\nsecret\n", "line 3 repeats a key; leave it out"),
    ] {
        let (_folder, path) = file("keys", text);
        assert_refused(&[&url[..], &["--keys-file", &path]].concat(), &format!("--keys-file = {path}: {expected}"));
    }
    let refused = |more: &[&str], expected: &str| {
        assert_refused(&[&["--keys-file", "/no/keys"], more].concat(), expected);
    };
    refused(&url, "--keys-file = /no/keys: No such file or directory (os error 2); give a file that can be read");
    refused(
        &[],
        "--keys-file = /no/keys: is for --target: the reference server gives keys of its own; use --organizations",
    );
    refused(
        &["--target", "http://h", "--api-key", "k"],
        "--keys-file = /no/keys: does not go with --api-key (or LOADGEN_API_KEY); leave one of the two out",
    );
    refused(
        &["--target", "http://h", "--organizations", "2"],
        "--keys-file = /no/keys: does not go with --organizations: it has as many as it has keys; leave one of the two out",
    );
}

#[test]
fn what_is_sent_and_how_becomes_part_of_the_plan() {
    let plain = plan(&[]);
    assert_eq!((plain.mix, plain.http, plain.streams, plain.batch_events), (Mix::default(), HttpVersion::Http1, 1, 10));
    let (_folder, ca) = file("ca.pem", CERTIFICATE);
    let arguments = [
        ["--target", "https://h:8443/"],
        ["--http", "2"],
        ["--streams", "8"],
        ["--mix", "ingest 3, batch 1"],
        ["--batch-events", "50"],
        ["--payload-bytes", "100..300"],
        ["--tls-ca", &ca],
    ]
    .concat();
    let resolved = resolve(flags(&arguments)).expect("a plan");
    let plan = resolved.plan;
    assert_eq!(plan.variants[0].name, "https://h:8443");
    assert_eq!((plan.http, plan.streams, plan.batch_events), (HttpVersion::Http2, 8, 50));
    assert_eq!(plan.mix, Mix { ingest: 0.75, batch: 0.25, inbox: 0.0, ack: 0.0 });
    assert_eq!(plan.payload_bytes, 200);
    assert_eq!(plan.payload_sizes, Some(PayloadSizes::Uniform { bytes_min: 100, bytes_max: 300 }));
    assert_eq!((plan.tls_ca, resolved.tls_ca), (Some(ca), Some(CERTIFICATE.into())));
    let faulty = self::plan(&["--fault", "lose 1%", "--fault", "stall 1s"]);
    assert_eq!(faulty.faults, ["lose 1%", "stall 1s"]);
    let (_folder, der) = file("ca.der", "0\u{1}");
    assert_refused(
        &["--target", "https://h", "--tls-ca", &der],
        &format!(
            "--tls-ca = {der}: holds no certificate in PEM form (-----BEGIN CERTIFICATE-----); convert it with: openssl x509 -inform der \
             -outform pem"
        ),
    );
}

#[test]
fn every_key_of_a_file_is_read_and_its_paths_are_taken_from_where_it_lies() {
    let (folder, plan_path) = file(
        "p.toml",
        "target = ['https://h']\nreplay = 'r.csv'\nreplay_speed = 2.0\nkeys_file = 'keys'\ntls_ca = 'ca.pem'\nhttp = '2'\nstreams = 4\n\
         mix = 'ingest 1, inbox 1'\nbatch_events = 20\npayload_bytes = 'lognormal 100 p99 1000'",
    );
    for (name, text) in [("r.csv", "offset_s\n0\n4\n"), ("keys", "a\n"), ("ca.pem", CERTIFICATE)] {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    let plan = resolve(Asked::from_file(Path::new(&plan_path)).expect("a file")).expect("a plan").plan;
    assert_eq!((plan.name.as_str(), plan.duration_ms, plan.streams, plan.batch_events), ("p", 2_001, 4, 20));
    assert_eq!(plan.payload_sizes, Some(PayloadSizes::Lognormal { bytes_median: 100, bytes_p99: 1_000 }));
    assert_eq!(plan.mix.inbox, 0.5);
}

#[test]
fn targets_with_a_profile_are_found_from_where_the_plan_lies_and_are_called_as_they_say() {
    let (folder, plan_path) =
        file("p.toml", "target = ['a', 'b/profile.toml', 'http://h:1']\ndatabase = 'postgres://h/x'");
    for (name, label, kind) in [("a", "default", "postgres"), ("b", "tuned", "sqlite")] {
        let inner = folder.path().join(name);
        std::fs::create_dir(&inner).expect("a folder");
        let text = format!("name = 'x'\nlabel = '{label}'\n[start]\ncommand = ['y']\n[database]\nkind = '{kind}'");
        std::fs::write(inner.join("profile.toml"), text).expect("a file");
    }
    let resolved = resolve(Asked::from_file(Path::new(&plan_path)).expect("a file")).expect("a plan");
    let names: Vec<_> = resolved.plan.variants.iter().map(|variant| variant.name.as_str()).collect();
    assert_eq!(names, ["x", "x/tuned", "h:1"]);
    assert_eq!(resolved.profiles.keys().collect::<Vec<_>>(), ["x", "x/tuned"]);
    assert_eq!(resolved.plan.database.as_deref(), Some("postgres, sqlite"));
    let a = folder.path().join("a").display().to_string();
    let twice = [&["--target", &a][..], &["--target", &a], &["--database", "postgres://h/x"]].concat();
    let error = resolve(flags(&twice)).expect_err("one name").to_string();
    let expected =
        format!("--target = {a}: is the second that is called x, and results are found by name; leave one out");
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn two_variants_of_one_name_are_refused() {
    let toml = "[[variants]]\nmode = 'null'\npolling = 'wake'\n[[variants]]\nmode = 'null'\npolling = 'fixed'";
    let error =
        resolve(Asked::from_toml(toml, Path::new("p.toml")).expect("a plan")).expect_err("one name").to_string();
    assert_eq!(
        error,
        "[[variants]] name = null: is the name of two variants, and results are found by name; give each a `name` of its own"
    );
}

#[test]
fn a_mistake_in_a_file_is_shown_where_it_is() {
    for (text, parts) in [
        ("rate = 1.0\nconections = 3", ["line 2", "unknown field `conections`"]),
        ("warmup = \"3\"", ["line 1", "500ms, 10s or 2m"]),
        ("arrivals = \"gaussian\"", ["line 1", "poisson"]),
        ("http = \"3\"", ["line 1", "`1.1` or `2`"]),
        ("shape = \"sine\"", ["line 1", "'ramp 100..5000'"]),
        ("mix = \"insert 1\"", ["line 1", "ingest, batch, inbox, ack"]),
        ("payload_bytes = \"big\"", ["line 1", "'100..2000'"]),
        ("payload_bytes = 2.5", ["line 1", "a whole number of bytes, or text such as '100..2000'"]),
        ("payload_bytes = -3", ["line 1", "'-3' is not a payload size"]),
    ] {
        let message = Asked::from_toml(text, Path::new("p.toml")).expect_err(text).to_string();
        for part in ["plan p.toml is not valid", parts[0], parts[1]] {
            assert!(message.contains(part), "should say {part:?}: {message}");
        }
    }
}

#[test]
fn objectives_are_checked_before_anything_runs() {
    assert!(matches!(resolve(flags(&["--slo", "response_tme.p99 < 1ms"])), Err(PlanError::Objective(_))));
    assert!(matches!(resolve(flags(&["--slo", "cache-frist: ledger.lost == 0"])), Err(PlanError::Objective(_))));
    assert!(resolve(flags(&["--slo", "cache-first: response_time.p99 < 1ms"])).is_ok());
}
