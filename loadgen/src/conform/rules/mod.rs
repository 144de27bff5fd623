//! The checks: one function a rule of CONTRACT.md, under its id.

mod delivery;
mod ingestion;
mod keys;
mod operating;
mod reading;

use reports::conform::Rule;

use super::bench::Bench;
use super::sheet::{Done, Sheet};

/// Rules whose checks start servers of their own and mostly wait: they run beside the others.
pub const BESIDE: [Rule; 3] = [Rule::I6, Rule::D1, Rule::O5];

/// Tests one rule.
pub async fn check(rule: Rule, bench: &Bench, sheet: &mut Sheet) -> Done {
    match rule {
        Rule::A1 => keys::a1(bench, sheet).await,
        Rule::A2 => keys::a2(bench, sheet).await,
        Rule::A3 => keys::a3(bench, sheet).await,
        Rule::A4 => keys::a4(bench, sheet).await,
        Rule::I1 => ingestion::i1(bench, sheet).await,
        Rule::I2 => ingestion::i2(bench, sheet).await,
        Rule::I3 => ingestion::i3(bench, sheet).await,
        Rule::I4 => ingestion::i4(bench, sheet).await,
        Rule::I5 => ingestion::i5(bench, sheet).await,
        Rule::I6 => ingestion::i6(bench, sheet).await,
        Rule::I7 => ingestion::i7(bench, sheet).await,
        Rule::I8 => ingestion::i8(bench, sheet).await,
        Rule::R1 => reading::r1(bench, sheet).await,
        Rule::R2 => reading::r2(bench, sheet).await,
        Rule::D1 => delivery::d1(bench, sheet).await,
        Rule::D2 => delivery::d2(bench, sheet).await,
        Rule::O1 => operating::o1(bench, sheet).await,
        Rule::O2 => operating::o2(bench, sheet).await,
        Rule::O3 => operating::o3(bench, sheet).await,
        Rule::O4 => operating::o4(bench, sheet).await,
        Rule::O5 => operating::o5(bench, sheet).await,
    }
}

/// Why a clause that needs a server of its own is not tested.
const NOT_OURS: &str = "the target was not started by this program";
