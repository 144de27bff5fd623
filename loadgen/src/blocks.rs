//! In which order several things are measured again and again: randomised complete blocks. Pure.
//!
//! A machine gets warmer, fuller and busier while it measures, so whatever always comes first, or always after the same one, is measured
//! on another machine than the rest. Everything is measured once in each block; over as many blocks as there are things, each is once at
//! each place, and (of an even number) each follows each other one once: a Latin square of E. J. Williams, its rows and what its numbers
//! stand for drawn at random.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// Sets the stream of this choice apart from others of the same seed.
const STREAM: u64 = 0x626c_6f63_6b73;

/// The orders of `blocks` blocks of the numbers below `count`.
pub fn orders(count: usize, blocks: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(STREAM);
    let mut orders = Vec::with_capacity(blocks);
    while orders.len() < blocks {
        let square = square(count, &mut random);
        let left = blocks - orders.len();
        orders.extend(square.into_iter().take(left));
    }
    orders
}

/// `count` orders, balanced as the module says.
fn square(count: usize, random: &mut ChaCha8Rng) -> Vec<Vec<usize>> {
    // 0, 1, n-1, 2, n-2, …: every difference of neighbours is there once, of an even number.
    let first: Vec<usize> =
        (0..count).map(|place| if place % 2 == 1 { place.div_ceil(2) } else { (count - place / 2) % count }).collect();
    let mut stands_for: Vec<usize> = (0..count).collect();
    stands_for.shuffle(random);
    let row = |shift: usize| first.iter().map(|number| stands_for[(number + shift) % count]).collect();
    let mut rows: Vec<Vec<usize>> = (0..count.max(1)).map(row).collect();
    rows.shuffle(random);
    rows
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_block_is_complete_and_every_place_is_taken_equally_often() {
        for count in 1..=9 {
            for seed in 0..20 {
                let orders = orders(count, 2 * count, seed);
                let mut at: BTreeMap<(usize, usize), u32> = BTreeMap::new();
                for order in &orders {
                    let mut sorted = order.clone();
                    sorted.sort_unstable();
                    assert_eq!(sorted, (0..count).collect::<Vec<_>>());
                    order.iter().enumerate().for_each(|(place, item)| *at.entry((place, *item)).or_default() += 1);
                }
                assert_eq!((at.len(), at.values().all(|times| *times == 2)), (count * count, true), "{orders:?}");
            }
        }
    }

    #[test]
    fn of_an_even_number_each_follows_each_other_one_equally_often() {
        for count in [2, 4, 6, 8] {
            let mut after: BTreeMap<(usize, usize), u32> = BTreeMap::new();
            for order in orders(count, count, 7) {
                order.windows(2).for_each(|pair| *after.entry((pair[0], pair[1])).or_default() += 1);
            }
            assert_eq!(
                (after.len(), after.values().all(|times| *times == 1)),
                (count * (count - 1), true),
                "{after:?}"
            );
        }
    }

    #[test]
    fn the_order_follows_from_the_seed_and_from_nothing_else() {
        assert_eq!(orders(4, 11, 5), orders(4, 11, 5));
        assert_eq!(orders(4, 11, 5).len(), 11);
        let firsts: std::collections::BTreeSet<_> = (0..200).map(|seed| orders(3, 1, seed).remove(0)).collect();
        assert_eq!(firsts.len(), 6, "every order of three comes first for some seed: {firsts:?}");
        assert_eq!(orders(3, 4, 1)[..3], orders(3, 3, 1)[..], "more repetitions change none before them");
        assert!(orders(0, 2, 1).iter().all(Vec::is_empty));
    }
}
