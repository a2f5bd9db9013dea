//! The same cruelty on a journal of thousands of a node's own records: whatever is done to the
//! files, what comes back are the balances after some whole prefix, or a refusal.
//!
//! By default each kind of damage is sampled, the same cases each time; `RIALTO_TORTURE=full` tries
//! them all, which takes a build with optimisations and patience.

use super::*;
use crate::crash::{Coins, crash};
use rialto_journal::{Fate, Faults};
use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, Commit, Ledger, Limits, Payment, PaymentEnd,
    PaymentId, PaymentProgress, Record, Relation,
};
use std::{collections::BTreeMap, env, ops::Range, sync::LazyLock, thread};

/// Of the whole tale.
const RECORDS: u64 = 3000;

/// Some 200 commits.
const TALE_SEGMENT_BYTES: u64 = 8192;

/// A checkpoint is taken after every so many records.
const CHECKPOINT_EVERY: u64 = 700;

const ACCOUNTS: u64 = 4;

/// Ways to go down, as [`crash`] counts them: a kill, all lost, all kept, zeros, a few bytes kept,
/// any mixture.
const WAYS: [u64; 12] = [0, 1, 2, 3, 5, 21, 22, 8, 23, 24, 25, 26];

/// What a node wrote, and what its books were after each record.
struct Tale {
    records: Vec<Vec<u8>>,
    /// After 0 records, after 1, and so on; in the order of the accounts.
    balances: Vec<Vec<i128>>,
    /// The state after so many records, as a checkpoint has it.
    snapshots: BTreeMap<u64, Vec<Vec<u8>>>,
}

impl Tale {
    fn record(&self, number: u64) -> &[u8] {
        &self.records[place(number) - 1]
    }
}

fn place(number: u64) -> usize {
    usize::try_from(number).unwrap()
}

static TALE: LazyLock<Tale> = LazyLock::new(tale);

fn tale() -> Tale {
    let mut ledger = Ledger::default();
    let mut tale = Tale {
        records: Vec::new(),
        balances: vec![balances(&ledger)],
        snapshots: BTreeMap::new(),
    };
    let mut coins = Coins(0x7261_6c74);
    for number in 1..=RECORDS {
        let record = record(number, &mut coins);
        ledger.apply(&record).unwrap();
        tale.records.push(encoded(&record));
        tale.balances.push(balances(&ledger));
        if is_checkpoint_due(number) || number == RECORDS - 60 {
            let snapshot = ledger.snapshot().map(|record| encoded(&record)).collect();
            tale.snapshots.insert(number, snapshot);
        }
    }
    tale
}

fn is_checkpoint_due(number: u64) -> bool {
    number.is_multiple_of(CHECKPOINT_EVERY)
}

/// Mostly commits, as in a node; the other kinds among them.
fn record(number: u64, coins: &mut Coins) -> Record {
    let payment = PaymentId(1);
    let progress = PaymentProgress {
        payment,
        sent: number,
        delivered: number,
        fulfilled: number,
        rejected: 0,
    };
    match number {
        1..=4 => account(number, 0),
        5 => Record::PaymentPut {
            payment: Box::new(Payment {
                id: payment,
                account: AccountId(1),
                account_name: "account-1".to_owned(),
                idempotency_key: "key".to_owned(),
                request: "{}".to_owned(),
                receiver: "https://bob.example/".to_owned(),
                created_at_ms: 0,
                destination_asset: Some(("EUR".to_owned(), 6)),
                progress,
                end: Some(PaymentEnd::Completed),
            }),
        },
        _ if number.is_multiple_of(97) => account(1 + number % 4, number),
        _ if number.is_multiple_of(13) => Record::Progress(progress),
        _ => {
            let from = coins.next() >> 9;
            let to = from + 1 + (coins.next() >> 9) % (ACCOUNTS - 1);
            let [from, to] =
                [from, to].map(|number| AccountId(u32::try_from(1 + number % ACCOUNTS).unwrap()));
            // Often all bits of the amount, so that sums leave 64 bits.
            let amount = coins.next() >> (coins.next() % 64);
            Record::Commit(Commit {
                from,
                amount_in: amount,
                to,
                amount_out: amount / 2,
            })
        }
    }
}

fn account(id: u64, packets_per_minute: u64) -> Record {
    let id = u32::try_from(id).unwrap();
    let asset = if id.is_multiple_of(2) {
        "USD/9"
    } else {
        "EUR/6"
    };
    let settings = AccountSettings {
        name: format!("account-{id}"),
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            limits: Limits {
                packets_per_minute: u32::try_from(packets_per_minute).ok(),
                ..Limits::default()
            },
            ..AccountTerms::new(Relation::Peer, asset.parse().unwrap())
        }
        .into(),
    };
    Record::AccountPut {
        id: AccountId(id),
        settings: Box::new(settings),
    }
}

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    bytes
}

fn balances(ledger: &Ledger) -> Vec<i128> {
    let accounts = ledger.accounts().map(rialto_ledger::Account::balance);
    let positions = ledger.positions().map(|(_, amount, _)| amount);
    accounts.chain(positions).collect()
}

/// Compares what is read with the tale, byte by byte. What the books are after records that are the
/// tale's needs no second reckoning: they are the tale's.
#[derive(Default)]
struct Reader {
    last: u64,
    /// The checkpoint that it began with, and how many pieces of it there were.
    checkpoint: Option<(u64, usize)>,
}

impl Reader {
    fn read<'a>(&mut self, replay: Replay<'a>) -> &'a [u8] {
        match replay {
            Replay::Checkpoint { at, record } => {
                let (_, count) = self.checkpoint.get_or_insert((at.0, 0));
                assert_eq!(record, TALE.snapshots[&at.0][*count]);
                *count += 1;
                self.last = at.0;
                record
            }
            Replay::Record { lsn, payload } => {
                assert_eq!(lsn.0, self.last + 1, "records follow on each other");
                assert_eq!(payload, TALE.record(lsn.0));
                self.last = lsn.0;
                payload
            }
        }
    }

    /// The number of records that were read.
    fn end(self, recovered: &Recovered) -> u64 {
        assert_eq!(recovered.last.0, self.last);
        if let Some((at, count)) = self.checkpoint {
            assert_eq!(count, TALE.snapshots[&at].len(), "all of the checkpoint");
        }
        self.last
    }
}

fn tale_options() -> Options {
    Options {
        segment_bytes: TALE_SEGMENT_BYTES,
        ..options()
    }
}

fn open_tale(disk: &SimDisk) -> Result<(Journal, u64), JournalError> {
    let mut reader = Reader::default();
    let opened = Journal::open(Arc::new(disk.clone()), tale_options(), |replay| {
        reader.read(replay);
        Ok::<_, Infallible>(())
    });
    let (journal, recovered) = opened?;
    Ok((journal, reader.end(&recovered)))
}

/// How many records are read, or `None` for a refusal that names the file.
fn read_tale(disk: &SimDisk) -> Option<u64> {
    let mut reader = Reader::default();
    let read = inspect(disk, |replay| {
        reader.read(replay);
        Ok::<_, Infallible>(())
    });
    match read {
        Ok(recovered) => Some(reader.end(&recovered)),
        Err(JournalError::Damaged { .. } | JournalError::Version { .. }) => None,
        Err(error) => panic!("{error}"),
    }
}

/// Replays as a node does: the books are those after exactly so many records.
fn replay_tale(disk: &SimDisk, count: u64) {
    let (mut reader, mut ledger) = (Reader::default(), Ledger::default());
    let recovered = inspect(disk, |replay| {
        let record = Record::decode(reader.read(replay)).unwrap();
        ledger.apply(&record)
    });
    assert_eq!(reader.end(&recovered.unwrap()), count);
    assert_eq!(balances(&ledger), TALE.balances[place(count)]);
}

/// What the journal promised before it went down.
#[derive(Default)]
struct Promised {
    appended: u64,
    written: u64,
    synced: u64,
}

/// Goes on with the tale up to record `until`: a write for every third record, a sync for every
/// twentieth, and checkpoints. `before` some of them the disk may be told to fail.
fn tell(
    disk: &SimDisk,
    until: u64,
    promised: &mut Promised,
    mut before: impl FnMut(What),
) -> Result<Journal, JournalError> {
    let (journal, count) = open_tale(disk)?;
    (promised.appended, promised.written, promised.synced) = (count, count, count);
    for number in count + 1..=until {
        journal.append(TALE.record(number))?;
        promised.appended = number;
        if number.is_multiple_of(3) {
            promised.written = journal.write()?.0;
        }
        if number.is_multiple_of(20) {
            before(What::Sync(number));
            promised.synced = journal.sync()?.0;
        }
        if is_checkpoint_due(number) {
            before(What::Checkpoint);
            journal.checkpoint(Lsn(number), &TALE.snapshots[&number])?;
            before(What::CheckpointDone);
            (promised.written, promised.synced) = (journal.written().0, journal.synced().0);
        }
    }
    Ok(journal)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// After this record.
    Sync(u64),
    Checkpoint,
    CheckpointDone,
}

/// The tale without its checkpoints, closed or killed with an end that was never synced.
fn told(count: u64, is_closed: bool) -> Vec<(String, Vec<u8>)> {
    let disk = SimDisk::new();
    let (journal, _) = open_tale(&disk).unwrap();
    for number in 1..=count {
        journal.append(TALE.record(number)).unwrap();
        if number.is_multiple_of(3) {
            journal.write().unwrap();
        }
        if number.is_multiple_of(20) && number + 90 < RECORDS {
            journal.sync().unwrap();
        }
    }
    if is_closed {
        journal.close().unwrap();
    } else {
        journal.write().unwrap();
    }
    contents(&disk)
}

/// The whole tale without a checkpoint and with one near the end, each closed, and one killed.
fn tales() -> [Vec<(String, Vec<u8>)>; 3] {
    let whole = told(RECORDS, true);
    let disk = copy(&whole);
    let (journal, _) = open_tale(&disk).unwrap();
    let at = RECORDS - 60;
    journal.checkpoint(Lsn(at), &TALE.snapshots[&at]).unwrap();
    journal.close().unwrap();
    let checkpointed = contents(&disk);
    assert!(whole.len() > 10 && checkpointed.len() < 4);
    [whole, checkpointed, told(RECORDS, false)]
}

fn is_full() -> bool {
    env::var_os("RIALTO_TORTURE").is_some_and(|value| value == "full")
}

/// Every `stride`-th of a range, or all of it on demand.
fn sampled(range: Range<usize>, stride: usize) -> impl Iterator<Item = usize> {
    range.step_by(if is_full() { 1 } else { stride })
}

/// What is left can be gone on with to the end of the tale.
fn goes_on(disk: &SimDisk, count: u64) {
    let until = (count + 30).min(RECORDS);
    let journal = tell(disk, until, &mut Promised::default(), |_| ()).unwrap();
    journal.close().unwrap();
    disk.crash(512, || Fate::Lost);
    replay_tale(disk, until);
}

/// Splits cases among the cores, and adds up what came of them.
fn on_all_cores<T: Sync>(cases: &[T], run: impl Fn(&mut [usize; 2], &T) + Sync) -> [usize; 2] {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let share = cases.len().div_ceil(cores).max(1);
    thread::scope(|scope| {
        let shares: Vec<_> = cases
            .chunks(share)
            .map(|share| {
                let run = &run;
                scope.spawn(move || {
                    let mut sums = [0; 2];
                    share.iter().for_each(|case| run(&mut sums, case));
                    sums
                })
            })
            .collect();
        let sums = shares.into_iter().map(|share| share.join().unwrap());
        sums.fold([0; 2], |sum, more| [sum[0] + more[0], sum[1] + more[1]])
    })
}

/// Damages one file of each tale in one way per case, and counts what comes of it.
fn damage_each(
    cases_of: impl Fn(&str, usize, bool) -> Vec<usize>,
    damage: impl Fn(&mut Vec<u8>, usize) + Sync,
    kind: &str,
) {
    let (mut prefixes, mut refusals) = (0, 0);
    for files in tales() {
        // A tale that is cheap to read is damaged more often.
        let is_short = files.len() < 4;
        let cases: Vec<_> = files
            .iter()
            .flat_map(|file| {
                let cases = cases_of(&file.0, file.1.len(), is_short).into_iter();
                cases.map(move |case| (file, case))
            })
            .collect();
        let sums = on_all_cores(&cases, |[prefixes, refusals], ((name, bytes), case)| {
            let mut damaged = bytes.clone();
            damage(&mut damaged, *case);
            let disk = copy(&files);
            disk.put(name, damaged);
            let Some(count) = read_tale(&disk) else {
                *refusals += 1;
                return;
            };
            *prefixes += 1;
            if *prefixes % 16 == 0 {
                goes_on(&disk, count);
            }
        });
        prefixes += sums[0];
        refusals += sums[1];
    }
    assert!(prefixes > 0 && refusals > 0);
    println!(
        "reliability: journal | {} {kind} of a long journal, {prefixes} whole prefixes, {refusals} \
         refusals | 0 wrong balances",
        prefixes + refusals
    );
}

#[test]
fn truncations_of_a_long_journal() {
    damage_each(
        |name, size, is_short| {
            let stride = match (is_short, name.ends_with(".checkpoint")) {
                (true, _) | (_, true) => 7,
                (false, false) => 401,
            };
            sampled(0..size, stride).collect()
        },
        |bytes, size| bytes.truncate(size),
        "truncations",
    );
}

#[test]
fn changed_bits_of_a_long_journal() {
    damage_each(
        |_, size, is_short| {
            // Every bit of a window in which frames of all kinds begin and end, others sampled.
            let (window, stride) = if is_short { (500 * 8, 37) } else { (0, 1789) };
            let window = window.min(size * 8);
            (0..window)
                .chain(sampled(window..size * 8, stride))
                .collect()
        },
        |bytes, bit| bytes[bit / 8] ^= 1 << (bit % 8),
        "changed bits",
    );
}

#[test]
fn a_closed_long_journal_hides_no_changed_bit() {
    let files = told(RECORDS, true);
    let (last, bytes) = files.last().unwrap();
    let cases: Vec<_> = files
        .iter()
        .flat_map(|file| sampled(0..(file.1.len() - 24) * 8, 3001).map(move |bit| (file, bit)))
        .collect();
    let [cases, _] = on_all_cores(&cases, |[cases, _], ((name, bytes), bit)| {
        let mut damaged = bytes.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let disk = copy(&files);
        disk.put(name, damaged);
        assert_eq!(read_tale(&disk), None, "bit {bit} of {name}");
        *cases += 1;
    });
    // The last mark is the only thing whose loss is not noticed, and it costs no record.
    let disk = copy(&files);
    disk.put(last, bytes[..bytes.len() - 24].to_vec());
    assert_eq!(read_tale(&disk), Some(RECORDS));
    println!("reliability: journal | {cases} changed bits of a closed journal | {cases} refused");
}

/// Sectors that did not reach the disk, or did without those written before them. Writes are cut at
/// sectors, so what a disk reorders is one of the subsets tried here.
#[test]
fn lost_and_reordered_sectors_of_unsynced_windows() {
    /// Written and not synced: a few segments' worth of sectors with a new segment between.
    const WINDOW: u64 = 80;
    let mut cases = 0;
    let bases = if is_full() { 64 } else { 3 };
    for base in (1..=bases).map(|base| base * (RECORDS - WINDOW) / bases) {
        let files = {
            let disk = SimDisk::new();
            let journal = tell(&disk, base, &mut Promised::default(), |_| ()).unwrap();
            journal.close().unwrap();
            contents(&disk)
        };
        // Says how many pieces there were.
        let mut attempt = |fate: &mut dyn FnMut(usize) -> Fate| {
            let disk = copy(&files);
            let (journal, count) = open_tale(&disk).unwrap();
            assert_eq!(count, base);
            for number in base + 1..=base + WINDOW {
                journal.append(TALE.record(number)).unwrap();
                if number.is_multiple_of(3) {
                    journal.write().unwrap();
                }
            }
            let mut pieces = 0;
            disk.crash(512, || {
                pieces += 1;
                fate(pieces - 1)
            });
            let count = read_tale(&disk).expect("what was never synced is no damage");
            assert!((base..=base + WINDOW).contains(&count));
            cases += 1;
            if cases % 16 == 0 {
                goes_on(&disk, count);
            }
            pieces
        };
        let pieces = attempt(&mut |_| Fate::Kept);
        assert!(pieces > 20);
        let others = [Fate::Lost, Fate::Zeroed];
        for other in others {
            for one in 0..pieces {
                let alone = |wanted: bool| if wanted { other } else { Fate::Kept };
                attempt(&mut |piece| alone(piece == one));
                attempt(&mut |piece| alone(piece != one));
                attempt(&mut |piece| alone(piece < one));
                attempt(&mut |piece| alone(piece >= one));
                for second in sampled(one + 1..pieces, 9) {
                    attempt(&mut |piece| alone(piece == one || piece == second));
                }
            }
        }
        let mut coins = Coins(base);
        for _ in 0..200 {
            attempt(&mut |_| match coins.next() >> 7 & 3 {
                0 | 1 => Fate::Kept,
                2 => Fate::Lost,
                _ => Fate::Zeroed,
            });
        }
    }
    println!(
        "reliability: journal | {cases} sets of lost, zeroed and reordered sectors in {bases} unsynced \
         windows | 0 synced records lost"
    );
}

#[test]
fn every_sync_fails_once() {
    let mut cases = 0;
    for number in (20..=RECORDS).step_by(if is_full() { 20 } else { 200 }) {
        for way in [0, 1, 3] {
            let disk = SimDisk::new();
            let mut promised = Promised::default();
            let failed = tell(&disk, RECORDS, &mut promised, |what| {
                if what == What::Sync(number) {
                    let syncs_fail = true;
                    disk.set_faults(Faults {
                        syncs_fail,
                        ..Faults::default()
                    });
                }
            });
            assert!(matches!(failed, Err(JournalError::Failed { .. })));
            check(&disk, &promised, way);
            cases += 1;
        }
    }
    println!("reliability: journal | {cases} failed syncs | 0 synced records lost");
}

#[test]
fn a_long_journal_meets_a_full_disk() {
    // The most it takes at any time, and a bit less than it takes to begin.
    let most = told(CHECKPOINT_EVERY + 100, true);
    let most: usize = most.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut cases = 0;
    for capacity in sampled(44..most, 211) {
        let disk = SimDisk::new();
        let mut promised = Promised::default();
        disk.set_faults(Faults {
            capacity_bytes: Some(capacity as u64),
            ..Faults::default()
        });
        // Either the journal stops, or a checkpoint finds no room, which is no end.
        let _ = tell(&disk, CHECKPOINT_EVERY + 100, &mut promised, |_| ());
        check(&disk, &promised, 0);
        cases += 1;
    }
    println!("reliability: journal | {cases} full disks | 0 written records lost");
}

#[test]
fn crashes_inside_checkpoints_and_elsewhere() {
    let disk = SimDisk::new();
    let mut checkpoints = Vec::new();
    tell(&disk, RECORDS, &mut Promised::default(), |what| {
        if !matches!(what, What::Sync(_)) {
            checkpoints.push(disk.operations());
        }
    })
    .unwrap();
    let operations = disk.operations();
    let inside = checkpoints
        .chunks(2)
        .flat_map(|pair| pair[0].saturating_sub(1)..=pair[1] + 1);
    let mut died_after: Vec<u64> = inside.collect();
    let within_checkpoints = died_after.len();
    let everywhere = sampled(0..place(operations), 131);
    died_after.extend(everywhere.map(|operation| operation as u64));
    let mut cases = 0;
    let moments = died_after.len();
    for (index, died_after) in died_after.into_iter().enumerate() {
        let ways = if index < within_checkpoints { 7 } else { 2 };
        let ways = if is_full() { WAYS.len() } else { ways };
        for way in &WAYS[..ways] {
            let disk = SimDisk::new();
            let mut promised = Promised::default();
            disk.set_faults(Faults {
                operations_left: Some(died_after),
                ..Faults::default()
            });
            let told = tell(&disk, RECORDS, &mut promised, |_| ());
            // The very last is the mark behind the last sync, which fails unseen and costs nothing: see
            // `a_mark_that_fails_is_told_by_the_next_call`.
            assert_eq!(told.is_ok(), died_after + 1 == operations);
            if told.is_ok() {
                assert_eq!(promised.synced, RECORDS);
            }
            check(&disk, &promised, *way);
            cases += 1;
        }
    }
    println!(
        "reliability: journal | {cases} crashes at {moments} of {operations} operations, \
         {within_checkpoints} of these in checkpoints and renames | 0 synced records lost"
    );
}

/// After going down in this way the journal has kept its promises and goes on.
fn check(disk: &SimDisk, promised: &Promised, way: u64) {
    crash(disk, way);
    disk.set_faults(Faults::default());
    let count = read_tale(disk).expect("a crash is no damage");
    let least = if way == 0 {
        promised.written
    } else {
        promised.synced
    };
    let possible = least..=promised.appended;
    assert!(possible.contains(&count), "{count} of {possible:?}");
    goes_on(disk, count);
}
