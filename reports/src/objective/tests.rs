//! Tests of objectives.
