//! `run.v1` as text: reading, writing, and its JSON Schema, which is generated from the types.

use crate::model::{Run, SCHEMA};

/// Why a text is no run.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not JSON.
    #[error("this is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// JSON of something else.
    #[error("this is no {wanted} result: its schema is {found}")]
    OtherSchema {
        /// What was to be read.
        wanted: &'static str,
        /// What it says.
        found: String,
    },
    /// The right schema, and not what it says.
    #[error("this result does not follow its schema: {0}")]
    Invalid(serde_json::Error),
}

/// Reads a result. Fields that this version does not know are passed over.
///
/// # Errors
/// When the text is not JSON, not `run.v1`, or lacks what every reader needs.
pub fn read(text: &str) -> Result<Run, ReadError> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(ReadError::NotJson)?;
    match value.get("schema").and_then(|s| s.as_str()) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(ReadError::Invalid),
        Some(other) => Err(ReadError::OtherSchema { wanted: SCHEMA, found: format!("{other:?}") }),
        None => Err(ReadError::OtherSchema { wanted: SCHEMA, found: "not given".to_owned() }),
    }
}

/// Writes a result, one field a line.
pub fn write(run: &Run) -> String {
    serde_json::to_string_pretty(run).expect("a run has only text keys") + "\n"
}

/// The JSON Schema of a result.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Run);
    schema.insert("title".to_owned(), format!("Millrace {SCHEMA}").into());
    schema.to_value()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::fixtures;

    #[test]
    fn the_schema_matches_the_types() {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("schema/run.v1.json");
        fixtures::assert_golden(&path, &(serde_json::to_string_pretty(&json_schema()).unwrap() + "\n"));
    }

    #[test]
    fn the_fixtures_are_what_builds_them_and_are_read_back_exactly() {
        for (name, run) in fixtures::all() {
            let text = write(&run);
            fixtures::assert_golden(&fixtures::path(&format!("{name}.json")), &text);
            assert_eq!(read(&text).unwrap(), run, "{name}");
        }
    }

    proptest! {
        #[test]
        fn a_number_is_read_back_to_its_last_bit(rate_per_s in prop::num::f64::NORMAL | prop::num::f64::SUBNORMAL) {
            let mut run = fixtures::small();
            (run.plan.rate_per_s, run.calibration) = (rate_per_s, None);
            prop_assert_eq!(read(&write(&run)).unwrap().plan.rate_per_s.to_bits(), rate_per_s.to_bits());
        }
    }

    #[test]
    fn every_fixture_follows_the_schema_and_loads() {
        let validator = jsonschema::validator_for(&json_schema()).unwrap();
        let mut seen = 0;
        for entry in std::fs::read_dir(fixtures::path("")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "json") {
                let text = std::fs::read_to_string(&path).unwrap();
                let value = serde_json::from_str(&text).unwrap();
                let problems: Vec<String> =
                    validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect();
                assert!(problems.is_empty(), "{}: {problems:#?}", path.display());
                read(&text).unwrap();
                seen += 1;
            }
        }
        assert!(seen >= 5);
    }

    #[test]
    fn what_is_no_result_is_refused_with_the_reason() {
        for (text, expected) in [
            ("{", "this is not JSON: "),
            ("[]", "this is no run.v1 result: its schema is not given"),
            (r#"{"schema":"run.v2"}"#, "this is no run.v1 result: its schema is \"run.v2\""),
            (r#"{"schema":"run.v1"}"#, "this result does not follow its schema: missing field `run_id`"),
        ] {
            let message = read(text).unwrap_err().to_string();
            assert!(message.starts_with(expected), "{text}: {message}");
        }
    }
}
