//! `scripts/cluster`: the manifest against a schema of Kubernetes, and what each script really starts, with a host that is this machine.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use yaml_rust2::{Yaml, YamlLoader};

const LOADGEN: &str = env!("CARGO_BIN_EXE_loadgen");

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").join("scripts/cluster").join(name)
}

fn told(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn manifest() -> Value {
    let text = std::fs::read_to_string(script("job.yaml")).expect("the manifest");
    let documents = YamlLoader::load_from_str(&text).expect("YAML");
    assert_eq!(documents.len(), 1);
    to_json(&documents[0])
}

fn to_json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Boolean(flag) => json!(flag),
        Yaml::Array(items) => items.iter().map(to_json).collect(),
        Yaml::Hash(members) => {
            let member = |(name, value): (&Yaml, &Yaml)| (name.as_str().expect("a name").to_owned(), to_json(value));
            Value::Object(members.iter().map(member).collect())
        }
        other => panic!("{other:?} has no place in a manifest"),
    }
}

fn problems(manifest: &Value) -> Vec<String> {
    let schema: Value = serde_json::from_str(include_str!("cluster/job.schema.json")).expect("a schema");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    validator.iter_errors(manifest).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn the_manifest_is_a_job_as_kubernetes_knows_it() {
    assert_eq!(problems(&manifest()), Vec::<String>::new());
}

#[test]
fn a_mistake_in_the_manifest_would_be_found() {
    type Change = fn(&mut Value);
    let cases: [(&str, Change); 5] = [
        ("/spec", |job| job["spec"]["completionmode"] = json!("Indexed")),
        ("/spec/completions", |job| job["spec"]["completions"] = json!("4")),
        ("/spec/template/spec/restartPolicy", |job| job["spec"]["template"]["spec"]["restartPolicy"] = json!("Always")),
        ("/spec/template/spec/containers/0", |job| {
            job["spec"]["template"]["spec"]["containers"][0]["arguments"] = json!([]);
        }),
        ("/apiVersion", |job| job["apiVersion"] = json!("batch/v2")),
    ];
    for (place, change) in cases {
        let mut changed = manifest();
        change(&mut changed);
        let found = problems(&changed);
        assert!(found.iter().any(|problem| problem.starts_with(place)), "{place}: {found:?}");
    }
}

#[test]
fn the_parts_of_the_job_are_counted_alike_and_a_pod_runs_what_loadgen_takes() {
    let job = manifest();
    let spec = &job["spec"];
    let count = spec["completions"].as_u64().expect("a number");
    assert_eq!(spec["parallelism"], spec["completions"], "all at once");
    let container = &spec["template"]["spec"]["containers"][0];
    let words = |name: &str| -> Vec<String> {
        let all = container[name].as_array().expect("words");
        all.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let filled: Vec<String> = words("args")
        .iter()
        .map(|word| {
            let word = word.replace("$(JOB_COMPLETION_INDEX)", &(count - 1).to_string());
            let start_at = (jiff::Timestamp::now() + std::time::Duration::from_secs(600)).to_string();
            word.replace("=START_AT", &format!("={start_at}"))
                .replace("=RUN_ID", "=k8s-1")
                .replace("=TARGET", "=http://10.0.0.7")
        })
        .collect();
    assert!(filled.contains(&format!("--shard={}/{count}", count - 1)), "{filled:?}");
    let output = Command::new(LOADGEN).arg("run").args(&filled).arg("--dry-run").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    // What a pod's shell does with the exit code.
    for (code, expected) in [(0, 0), (3, 0), (5, 0), (1, 1), (2, 1)] {
        let folder = with_loadgen(&format!("exit {code}"));
        let command = words("command");
        let shell = command[2].replace("/dev/termination-log", "/dev/null");
        let output = Command::new(&command[0])
            .args([&command[1], &shell, &command[3]])
            .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
            .output()
            .expect("a shell");
        assert_eq!(output.status.code(), Some(expected), "loadgen ended with {code}");
    }
}

/// A folder with a program `loadgen` that does this.
fn with_loadgen(body: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, body) in [("loadgen", body), ("ssh-to", r#"shift; exec bash -c "$1""#)] {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/usr/bin/env bash\n{body}\n")).expect("a program");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a program");
    }
    folder
}

/// Writes down what it is called with, and what it is asked for as a dry run it does.
const NOTING: &str = r#"printf '%s\n' "$*" >>"$NOTES"; [ "$1" = merge ] || exec "$REAL" "$@" --dry-run"#;

fn run_with_notes(command: &mut Command, folder: &Path) -> (Output, Vec<String>) {
    let notes = folder.join("notes");
    let output = command
        .current_dir(folder)
        .env("LOADGEN", folder.join("loadgen"))
        .env("NOTES", &notes)
        .env("REAL", LOADGEN)
        .output()
        .expect("a shell");
    let noted = std::fs::read_to_string(notes).unwrap_or_default();
    let mut noted: Vec<String> = noted.lines().map(str::to_owned).collect();
    noted.sort();
    (output, noted)
}

#[test]
fn ssh_starts_one_part_on_each_host_with_one_start_and_merges_what_comes_back() {
    let folder = with_loadgen(NOTING);
    let flags = ["load-1 load-2 load-3", "all", "--target", "http://10.0.0.7:8080", "--slo", "response_time.p99 < 1ms"];
    let ssh = folder.path().join("ssh-to");
    let (output, noted) = run_with_notes(Command::new(script("ssh.sh")).args(flags).env("SSH", ssh), folder.path());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(noted.len(), 4, "{noted:?}");
    assert_eq!(noted[0], "merge all/shard-0.json all/shard-1.json all/shard-2.json --out all");
    let after_shard = |line: &str| line.split_once("/3 ").expect("a part").1.to_owned();
    for (part, line) in noted[1..].iter().enumerate() {
        assert!(line.starts_with(&format!("run --shard {part}/3 --start-at ")), "{line}");
        assert!(line.ends_with("--slo response_time.p99 < 1ms"), "a word with spaces stays one: {line}");
        assert_eq!(after_shard(line), after_shard(&noted[1]), "all else is alike");
    }
}

#[test]
fn a_task_of_a_slurm_array_sends_its_part_wherever_the_array_begins() {
    for (id, min, part) in [("0", "0", 0), ("7", "4", 3)] {
        let folder = with_loadgen(NOTING);
        let start_at = (jiff::Timestamp::now() + std::time::Duration::from_secs(600)).to_string();
        let mut command = Command::new(script("slurm.sh"));
        command.args(["--target", "http://10.0.0.7:8080"]).env("START_AT", &start_at);
        command.envs([("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", min), ("SLURM_ARRAY_TASK_COUNT", "4")]);
        let (output, noted) = run_with_notes(command.env("SLURM_ARRAY_JOB_ID", "99"), folder.path());
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let expected = format!(
            "run --shard {part}/4 --start-at {start_at} --run-id slurm-99 --quiet --target http://10.0.0.7:8080"
        );
        assert_eq!(noted, [expected]);
    }
    let output = Command::new(script("slurm.sh")).env_remove("SLURM_ARRAY_TASK_ID").output().expect("a shell");
    assert!(!output.status.success() && told(&output).contains("start this with sbatch"), "{}", told(&output));
}
