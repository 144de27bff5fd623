//! The fuzz targets' bodies (`fuzz/`) with the stable compiler: over their seeds, and a few thousand mutations of these that are the same in
//! every run. So that they do not rot, and what was once found stays mended; what searches for new mistakes is `scripts/fuzz`.

#[path = "../fuzz/src/lib.rs"]
mod bodies;

use std::path::{Path, PathBuf};

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// Of each target.
const MUTATIONS: usize = 2_000;
/// Of a target that draws whole pages.
const MUTATIONS_OF_RESULTS: usize = 100;

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(path).expect("a seed"))).collect()
}

/// Changes, removes, repeats or swaps in a few places, as a fuzzer does.
fn mutated(seeds: &[(PathBuf, Vec<u8>)], random: &mut StdRng) -> Vec<u8> {
    let pick = |random: &mut StdRng| seeds[random.random_range(0..seeds.len())].1.clone();
    let mut bytes = pick(random);
    for _ in 0..random.random_range(1..6) {
        if bytes.is_empty() {
            bytes = vec![0];
        }
        let at = random.random_range(0..bytes.len());
        let end = (at + random.random_range(1..16)).min(bytes.len());
        match random.random_range(0..5) {
            0 => bytes[at] = random.next_u32() as u8,
            1 => bytes[at] ^= 1 << random.random_range(0..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece.repeat(random.random_range(1..4)));
            }
            _ => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
        }
    }
    bytes
}

/// Runs one target, and says of a failure what would bring it back.
fn run(target: &str) {
    let (_, body) = *bodies::TARGETS.iter().find(|(name, _)| *name == target).expect("a target of that name");
    let seeds = seeds(target);
    for (path, bytes) in &seeds {
        eprintln!("{}", path.display());
        body(bytes);
    }
    let mut random = StdRng::seed_from_u64(1);
    for _ in 0..if target == "run_v1" { MUTATIONS_OF_RESULTS } else { MUTATIONS } {
        let bytes = mutated(&seeds, &mut random);
        let outcome = std::panic::catch_unwind(|| body(&bytes));
        assert!(outcome.is_ok(), "{target} fails for b\"{}\"", bytes.escape_ascii());
    }
}

/// One test for each target, so that they run side by side and a failure has a name.
macro_rules! each {
    ($($target:ident)*) => {
        $(#[test] fn $target() { run(stringify!($target)); })*

        #[test]
        fn every_target_has_a_test_a_binary_and_a_corpus() {
            let tested = [$(stringify!($target)),*];
            let names: Vec<&str> = bodies::TARGETS.iter().map(|(name, _)| *name).collect();
            assert_eq!(names, tested);
            let manifest = include_str!("../fuzz/Cargo.toml");
            let listed: Vec<&str> = manifest.split("[[bin]]\nname = \"").skip(1).map(|rest| rest.split('"').next().unwrap_or("")).collect();
            assert_eq!(listed, tested);
            for name in tested {
                assert!(!seeds(name).is_empty(), "{name} has no corpus");
            }
        }
    };
}

each! { event http1 journal objective plan replay run_v1 }
