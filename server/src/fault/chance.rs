//! Which events a fault hits: decided by the event and the seed alone, so that whoever knows both knows it too, whatever the order
//! of arrival and however often the server was restarted.
//!
//! An event is hit by the fault `NAME` with share `p` when the first 53 bits of the SHA-256 of the text `SEED:NAME:IDENTITY`, taken as
//! a fraction of 1, are less than `p`. Its identity is its `dedup_id`, or without one its payload's bytes. From a shell:
//! `printf 1:drop:my-dedup-id | sha256sum`, of which the first 13 hexadecimal digits are 52 of the bits.

use sha2::{Digest, Sha256};

/// Bits that a `f64` holds exactly.
const BITS: u32 = 53;

/// Whether the fault `name`, which hits this share of all events (0..=1), hits this one.
pub fn hits(seed: u64, name: &str, share: f64, identity: &[u8]) -> bool {
    let digest = Sha256::new().chain_update(format!("{seed}:{name}:")).chain_update(identity).finalize();
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    let fraction = (u64::from_be_bytes(first) >> (u64::BITS - BITS)) as f64 / (1u64 << BITS) as f64;
    fraction < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rule_is_the_one_that_is_written_down() {
        // printf 1:drop:a | sha256sum
        let fraction = 0xe_d728_c5af_ec31_u64 as f64 / 16f64.powi(13);
        assert!(hits(1, "drop", fraction + 1e-12, b"a"));
        assert!(!hits(1, "drop", fraction - 1e-12, b"a"));
    }

    #[test]
    fn about_the_share_is_hit_and_neither_none_nor_all_at_the_ends() {
        let identities: Vec<String> = (0..20_000).map(|number| format!("run.{number:012}")).collect();
        for share in [0.0, 0.01, 0.5, 1.0] {
            let hit = identities.iter().filter(|identity| hits(7, "drop", share, identity.as_bytes())).count() as f64;
            let deviation = (20_000.0 * share * (1.0 - share)).sqrt();
            assert!((hit - 20_000.0 * share).abs() <= 4.0 * deviation, "{hit} of 20,000 at {share}");
        }
    }

    #[test]
    fn another_seed_and_another_fault_hit_others() {
        let hit = |seed, name| (0..1_000u32).filter(|n| hits(seed, name, 0.5, &n.to_be_bytes())).collect::<Vec<_>>();
        assert_ne!(hit(1, "drop"), hit(2, "drop"));
        assert_ne!(hit(1, "drop"), hit(1, "corrupt"));
    }
}
