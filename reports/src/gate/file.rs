//! `gate.v1` as text: reading, writing, and its JSON Schema, which is generated from the types.

use super::model::{Gate, SCHEMA};
use crate::schema::ReadError;

/// Reads a result. Fields that this version does not know are passed over.
///
/// # Errors
/// When the text is not JSON, not `gate.v1`, or lacks what every reader needs.
pub fn read(text: &str) -> Result<Gate, ReadError> {
    let value: serde_json::Value = serde_json::from_str(text).map_err(ReadError::NotJson)?;
    match value.get("schema").and_then(|schema| schema.as_str()) {
        Some(SCHEMA) => serde_json::from_value(value).map_err(ReadError::Invalid),
        Some(other) => Err(ReadError::OtherSchema { wanted: SCHEMA, found: format!("{other:?}") }),
        None => Err(ReadError::OtherSchema { wanted: SCHEMA, found: "not given".to_owned() }),
    }
}

/// Writes a result, one field a line.
pub fn write(gate: &Gate) -> String {
    serde_json::to_string_pretty(gate).expect("a gate has only text keys") + "\n"
}

/// The JSON Schema of a result.
pub fn json_schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Gate);
    schema.insert("title".to_owned(), format!("Millrace {SCHEMA}").into());
    schema.to_value()
}
