//! What the journal promises, on a disk that is cut, torn and broken at every single operation.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::format::{self, BatchWriter, Damage, Header, RECORDS_START};
use super::log::{Appended, Log, LogSettings};
use super::recovery::{RecoveryError, recover};
use super::segments::{NoSegment, PIECE_BYTES, Pace, Sealed, Segments, Sizes, segment_name};
use super::simulated::{Fault, Image, Simulated, SimulatedFile};
use crate::config::JournalSync;
use crate::event::Event;
use crate::metrics::{BuildInfo, Metrics};
use crate::pending::Hold;

/// Four to eight events fit into one.
const SIZES: Sizes = Sizes { segment_bytes: RECORDS_START + 1_600, bytes_max: 1 << 20 };
const BATCH_BYTES_MAX: u64 = 800;

type TestLog = Log<SimulatedFile, Segments<Simulated>>;

fn event(number: u64) -> Event {
    Event {
        id: Uuid::from_u128(u128::from(number) + 1),
        organization_id: Uuid::from_u128(7),
        event_type: format!("type-{number}").into(),
        dedup_id: number.is_multiple_of(2).then(|| format!("é-{number}").into()),
        payload: Bytes::from(vec![b'0' + (number % 10) as u8; (number * 37 % 150) as usize]),
        created_at_us: -(number as i64),
        followed: None,
    }
}

fn metrics() -> Metrics {
    Metrics::new(&BuildInfo::default())
}

/// A journal on `disk`, its store, and what was promised to senders.
#[derive(Default)]
struct World {
    /// Written at some time, whether anybody was told or not.
    attempted: HashMap<Uuid, Event>,
    acknowledged: HashSet<Uuid>,
    /// What the store has.
    store: HashSet<Uuid>,
    next: u64,
}

/// One process: what it recovered, and its log.
struct Process {
    log: TestLog,
    /// Acknowledged and not in the store yet, oldest first.
    pending: VecDeque<(Uuid, Hold)>,
}

impl World {
    /// Starts on what is left of a disk. The error says which promise is broken.
    fn start(&mut self, disk: &Simulated, sync: JournalSync) -> Result<Process, String> {
        let recovered = recover(disk).map_err(|error| format!("refused: {error}"))?;
        let mut seen = HashSet::new();
        for event in recovered.segments.iter().flat_map(|segment| &segment.events) {
            if self.attempted.get(&event.id) != Some(event) {
                return Err(format!("invented or altered: {event:?}"));
            }
            if !seen.insert(event.id) {
                return Err(format!("twice: {event:?}"));
            }
        }
        if let Some(lost) = self.acknowledged.iter().find(|id| !seen.contains(id) && !self.store.contains(id)) {
            return Err(format!("lost: {lost}"));
        }
        let mut pending = VecDeque::new();
        let sealed: Vec<Sealed> = recovered
            .segments
            .into_iter()
            .map(|segment| {
                let hold = Hold::default();
                let open = segment.events.iter().filter(|event| !self.store.contains(&event.id));
                pending.extend(open.map(|event| (event.id, hold.clone())));
                Sealed { number: segment.number, bytes: segment.bytes, hold }
            })
            .collect();
        // On a disk that is broken from here on nothing is acknowledged, so nothing can be lost.
        let segments = Segments::open(Arc::new(disk.clone()), SIZES, recovered.number, sealed);
        let segments = segments.map_err(|error| format!("broken: {error}"))?;
        let settings = LogSettings { sync, batch_bytes_max: BATCH_BYTES_MAX, syncs_extra: 0 };
        Ok(Process { log: Log::new(segments, recovered.batch, settings), pending })
    }

    /// Appends batches of growing length while the store takes every second event; until the end, or until the disk is broken.
    fn run(&mut self, process: &mut Process, batches: usize) {
        let metrics = metrics();
        for round in 0..batches {
            let events: Vec<Event> = (0..1 + round as u64 % 5).map(|offset| event(self.next + offset)).collect();
            self.next += events.len() as u64;
            let mut rest = &events[..];
            while !rest.is_empty() {
                self.attempted.extend(rest.iter().map(|event| (event.id, event.clone())));
                match process.log.append(rest.iter(), &metrics) {
                    Ok(Appended { events, hold }) => {
                        let (safe, after) = rest.split_at(events);
                        self.acknowledged.extend(safe.iter().map(|event| event.id));
                        process.pending.extend(safe.iter().map(|event| (event.id, hold.clone())));
                        rest = after;
                    }
                    Err(NoSegment::Broken(_)) => return,
                    Err(_refused) => break,
                }
            }
            for _ in 0..2 {
                if let Some((id, _hold)) = process.pending.pop_front() {
                    self.store.insert(id);
                }
            }
        }
    }
}

/// Two processes, one after the other, on a disk with one fault; then a third that only looks. Which promise is broken?
fn two_lives(fault: Option<(usize, Fault)>, image: Image, syncs_lie: bool, sync: JournalSync) -> Result<usize, String> {
    let disk = fault.map_or_else(Simulated::default, |(at, fault)| Simulated::with_fault(at, fault));
    if syncs_lie {
        disk.let_syncs_lie();
    }
    let mut world = World::default();
    if let Ok(mut process) = world.start(&disk, sync) {
        world.run(&mut process, 24);
    }
    let operations = disk.operations();
    let left = disk.after(image);
    if syncs_lie {
        left.let_syncs_lie();
    }
    let mut process = world.start(&left, sync)?;
    world.run(&mut process, 8);
    world.start(&left.after(image), sync)?;
    Ok(operations)
}

const IMAGES: [Image; 5] = [Image::Process, Image::Strict, Image::Torn(1), Image::Torn(2), Image::Torn(3)];

fn operations_of_one_life() -> usize {
    two_lives(None, Image::Process, false, JournalSync::Always).expect("nothing happened")
}

#[test]
fn nothing_acknowledged_is_lost_whichever_operation_is_the_last_fails_or_finds_no_room() {
    let operations = operations_of_one_life();
    assert!(operations > 100, "segments were filled, retired and used again: {operations}");
    for image in IMAGES {
        for fault in [Fault::Cut, Fault::Error, Fault::Full] {
            for at in 0..=operations {
                let kept = two_lives(Some((at, fault)), image, false, JournalSync::Always);
                assert!(kept.is_ok(), "{fault:?} at operation {at}, {image:?}: {}", kept.unwrap_err());
            }
        }
    }
}

#[test]
fn the_test_above_finds_a_disk_whose_syncs_lie_and_a_journal_that_does_not_sync() {
    let operations = operations_of_one_life();
    for (syncs_lie, sync) in [(true, JournalSync::Always), (false, JournalSync::Os)] {
        let found = (0..=operations)
            .filter_map(|at| two_lives(Some((at, Fault::Cut)), Image::Strict, syncs_lie, sync).err())
            .filter(|broken| broken.starts_with("lost"))
            .count();
        assert!(found > operations / 4, "{sync:?}: losses at {found} of {operations} operations");
    }
}

#[test]
fn without_syncs_a_dead_process_alone_loses_nothing() {
    for at in 0..=operations_of_one_life() {
        let kept = two_lives(Some((at, Fault::Cut)), Image::Process, false, JournalSync::Os);
        assert!(kept.is_ok(), "at operation {at}: {}", kept.unwrap_err());
    }
}

#[test]
fn an_error_while_recovering_says_so_and_the_next_try_finds_everything() {
    let disk = Simulated::default();
    let mut world = World::default();
    let mut process = world.start(&disk, JournalSync::Always).expect("an empty disk");
    world.run(&mut process, 12);
    let whole = disk.after(Image::Strict);
    let before = whole.operations();
    recover(&whole).expect("recovers");
    for at in 0..whole.operations() - before {
        let left = disk.after(Image::Strict);
        left.fail_next(at);
        assert!(matches!(recover(&left), Err(RecoveryError::Disk(_))), "operation {at}");
        world.start(&left, JournalSync::Always).expect("the next try");
    }
}

#[test]
fn a_write_or_a_sync_that_fails_is_told_apart_from_a_full_disk_and_its_batch_is_not_in() {
    // An append into a segment that is in use is one write and one sync.
    for (skipped, action) in [(0, "write to"), (1, "sync")] {
        let (disk, metrics) = (Simulated::default(), metrics());
        let mut process = World::default().start(&disk, JournalSync::Always).expect("an empty disk");
        process.log.append([event(1)].iter(), &metrics).expect("works");
        disk.fail_next(skipped);
        match process.log.append([event(2)].iter(), &metrics).expect_err("fails") {
            NoSegment::Broken(error) => assert_eq!((error.action, error.name), (action, segment_name(1))),
            other => panic!("{other}"),
        }
        let left = recover(&disk.after(Image::Strict)).expect("recovers");
        assert_eq!(left.segments[0].events, [event(1)]);
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room_again() {
    let (disk, metrics) = (Simulated::default(), metrics());
    let mut world = World::default();
    let mut process = world.start(&disk, JournalSync::Always).expect("an empty disk");
    disk.fill();
    let refused = process.log.append([event(1)].iter(), &metrics).expect_err("full");
    assert!(matches!(refused, NoSegment::DiskFull { .. }), "{refused}");
    disk.make_room();
    assert_eq!(process.log.append([event(1)].iter(), &metrics).expect("room").events, 1);
}

#[test]
fn segments_that_wait_for_the_store_are_bounded_and_go_when_it_has_them() {
    let (disk, metrics) = (Arc::new(Simulated::default()), metrics());
    let sizes = Sizes { bytes_max: 4 * SIZES.segment_bytes, ..SIZES };
    let segments = Segments::open(Arc::clone(&disk), sizes, 1, Vec::new()).expect("opens");
    let mut log = Log::new(
        segments,
        1,
        LogSettings { sync: JournalSync::Always, batch_bytes_max: BATCH_BYTES_MAX, syncs_extra: 0 },
    );
    let mut holds = Vec::new();
    let refused = loop {
        match log.append([event(holds.len() as u64)].iter(), &metrics) {
            Ok(appended) => holds.push(appended.hold),
            Err(refused) => break refused,
        }
    };
    assert!(matches!(refused, NoSegment::AtBound { bytes_max } if bytes_max == sizes.bytes_max), "{refused}");
    assert_eq!(recover(&*disk).expect("recovers").segments.len(), 3, "with room for one to be made ahead");
    holds.clear();
    log.append([event(1_000)].iter(), &metrics).expect("the store has taken all");
    assert_eq!(recover(&*disk).expect("recovers").segments.len(), 1);
}

#[test]
fn a_new_segment_is_written_and_synced_in_pieces_with_rests_between_them_and_a_used_one_is_not_written_again() {
    let disk = Arc::new(Simulated::default());
    let segment_bytes = 3 * PIECE_BYTES as u64 + 1;
    let sizes = Sizes { segment_bytes, bytes_max: 10 * segment_bytes };
    let mut segments = Segments::open(Arc::clone(&disk), sizes, 1, Vec::new()).expect("opens");
    let mut pace = Counted { disk: Arc::clone(&disk), rests_max: u32::MAX, operations_at_rests: Vec::new() };
    let before = disk.operations();
    let first = segments.prepare(&mut pace).expect("room");
    // The file is made, and each piece is one write and one sync.
    assert_eq!(pace.operations_at_rests, [3, 5, 7].map(|operations| before + operations));
    assert_eq!(disk.bytes(&segment_name(1)).len() as u64, segment_bytes);
    segments.seal(Sealed { number: 1, bytes: first.bytes, hold: Hold::default() });
    segments.prepare(&mut pace).expect("made of the first one");
    assert_eq!(pace.operations_at_rests.len(), 3, "and none is needed for that");
    (pace.rests_max, pace.operations_at_rests) = (1, Vec::new());
    let before = disk.operations();
    segments.prepare(&mut pace).expect("room");
    assert_eq!(pace.operations_at_rests, [before + 3], "from then on somebody waits");
    // Three more pieces; the header, its sync, the name, and the folder's sync.
    assert_eq!(disk.operations(), before + 3 + 3 + 4, "with one sync and not four");
}

/// Notes when it rests, until somebody waits.
struct Counted {
    disk: Arc<Simulated>,
    rests_max: u32,
    operations_at_rests: Vec<usize>,
}

impl Pace for Counted {
    fn is_waited_for(&mut self) -> bool {
        self.operations_at_rests.len() >= self.rests_max as usize
    }

    fn rest(&mut self, _: Duration) {
        self.operations_at_rests.push(self.disk.operations());
    }
}

/// Five batches in one segment, the length of each, and the disk.
fn five_batches() -> (Simulated, Vec<u64>) {
    let disk = Simulated::default();
    let sizes = Sizes { segment_bytes: RECORDS_START + 8_000, ..SIZES };
    let segments = Segments::open(Arc::new(disk.clone()), sizes, 1, Vec::new()).expect("opens");
    let mut log = Log::new(
        segments,
        1,
        LogSettings { sync: JournalSync::Always, batch_bytes_max: BATCH_BYTES_MAX, syncs_extra: 0 },
    );
    let mut ends = Vec::new();
    for number in 0..5 {
        log.append([event(number), event(number + 100)].iter(), &metrics()).expect("appends");
        ends.push(format::read(&disk.bytes(&segment_name(1))).expect("reads").end);
    }
    (disk, ends)
}

#[test]
fn a_torn_tail_is_cut_and_a_hole_before_valid_data_is_refused() {
    let (disk, ends) = five_batches();
    let whole = disk.bytes(&segment_name(1));
    for at in RECORDS_START..ends[4] {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 0x10;
        let batch = ends.iter().position(|end| at < *end).expect("inside of a batch");
        match format::read(&bytes) {
            // The last one cannot be told from a torn write; and padding belongs to no record.
            Ok(content) => assert!(
                content.batches.len() == 4 && batch == 4 || content.batches.len() == 5,
                "byte {at} of batch {batch}: {} batches are left",
                content.batches.len()
            ),
            Err(Damage::Hole { from, .. }) => {
                assert!(batch < 4);
                assert_eq!(from, if batch == 0 { RECORDS_START } else { ends[batch - 1] });
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    let mut damaged = whole;
    damaged[RECORDS_START as usize + 20] ^= 1;
    disk.replace(&segment_name(1), damaged);
    let refused = recover(&disk).expect_err("a hole").to_string();
    assert!(refused.contains("segment-0000000000000001") && refused.contains("something that was synced is damaged"));
}

#[test]
fn a_segment_that_is_missing_misnamed_or_of_another_version_is_refused_with_its_name() {
    let disk = Simulated::default();
    let mut world = World::default();
    let mut process = world.start(&disk, JournalSync::Always).expect("an empty disk");
    world.run(&mut process, 12);
    // Nothing was retired.
    let numbers: Vec<u64> = recover(&disk).expect("recovers").segments.iter().map(|segment| segment.number).collect();
    let [_, second, third, ..] = numbers[..] else { panic!("three segments") };
    let header = |number| Header { number, salt: 1 }.to_bytes();
    for (words, number, bytes) in [
        ("is missing between", second, None),
        ("holds segment 99", third, Some(header(99).to_vec())),
        ("is not a journal segment's", second, Some(vec![0; 64])),
        ("and batch ", second, Some(header(second).to_vec())),
    ] {
        let (disk, name) = (disk.after(Image::Process), segment_name(number));
        match bytes {
            None => super::disk::Disk::remove(&disk, &name).unwrap(),
            Some(bytes) => disk.replace(&name, bytes),
        }
        let refused = recover(&disk).expect_err(words).to_string();
        assert!(refused.contains(words) && refused.contains("segment"), "{refused}");
    }
}

#[test]
fn what_a_file_held_in_an_earlier_life_is_not_read_even_where_it_fits() {
    let (disk, ends) = five_batches();
    let mut bytes = disk.bytes(&segment_name(1));
    let header = Header { number: 1, salt: 12_345 };
    bytes[..36].copy_from_slice(&header.to_bytes());
    assert_eq!(format::read(&bytes).expect("empty").batches, []);
    // And behind a new batch that is shorter than the old ones.
    let mut batch = Vec::new();
    let mut writer = BatchWriter::new(&mut batch, header.salt, RECORDS_START);
    writer.push(&event(5));
    writer.finish(9);
    assert!((batch.len() as u64) < ends[0] - RECORDS_START);
    bytes[RECORDS_START as usize..][..batch.len()].copy_from_slice(&batch);
    let content = format::read(&bytes).expect("one batch");
    assert_eq!(content.batches, [format::Batch { number: 9, events: vec![event(5)] }]);
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = || "\\PC{1,40}";
    (
        any::<u128>(),
        any::<u128>(),
        text(),
        prop::option::of(text()),
        prop::collection::vec(any::<u8>(), 0..400),
        any::<i64>(),
    )
        .prop_map(|(id, organization_id, event_type, dedup_id, payload, created_at_us)| Event {
            id: Uuid::from_u128(id),
            organization_id: Uuid::from_u128(organization_id),
            event_type: event_type.into(),
            dedup_id: dedup_id.map(Into::into),
            payload: payload.into(),
            created_at_us,
            followed: None,
        })
}

fn segment_of(batches: &[Vec<Event>], salt: u64) -> (Vec<u8>, Vec<usize>) {
    let mut bytes = Header { number: 3, salt }.to_bytes().to_vec();
    bytes.resize(RECORDS_START as usize, 0);
    let mut ends = Vec::new();
    for (number, events) in batches.iter().enumerate() {
        let mut buffer = Vec::new();
        let mut writer = BatchWriter::new(&mut buffer, salt, bytes.len() as u64);
        let mut announced = 0;
        for event in events {
            announced = writer.bytes_with(event);
            writer.push(event);
        }
        writer.finish(number as u64 + 10);
        assert_eq!(buffer.len() as u64, announced);
        bytes.extend_from_slice(&buffer);
        ends.push(bytes.len());
    }
    (bytes, ends)
}

proptest! {
    #[test]
    fn what_was_written_is_read_and_a_cut_at_any_byte_leaves_whole_batches(
        batches in prop::collection::vec(prop::collection::vec(any_event(), 1..4), 1..5),
        salt: u64,
        cut: prop::sample::Index,
    ) {
        let (bytes, ends) = segment_of(&batches, salt);
        let read = |bytes: &[u8]| format::read(bytes).map(|content| content.batches.into_iter().map(|batch| batch.events).collect::<Vec<_>>());
        prop_assert_eq!(read(&bytes), Ok(batches.clone()));
        let length = RECORDS_START as usize + cut.index(bytes.len() - RECORDS_START as usize);
        let whole = ends.iter().filter(|end| **end <= length).count();
        prop_assert_eq!(read(&bytes[..length]), Ok(batches[..whole].to_vec()));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), salt: u64) {
        let _ = format::read(&bytes);
        let mut segment = Header { number: 1, salt }.to_bytes().to_vec();
        segment.resize(RECORDS_START as usize, 0);
        segment.extend(bytes);
        prop_assert_eq!(format::read(&segment).map(|content| content.batches), Ok(Vec::new()));
    }
}
