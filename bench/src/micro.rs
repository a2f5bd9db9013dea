//! The parts of the packet path alone, measured in instructions: a count repeats on a busy machine,
//! where a time does not.
//!
//! `micro --check` runs each part twice under valgrind, the second time twice as often, and takes the
//! difference, so that starting up and setting up are not counted. valgrind shows every program the
//! same processor, so the counts do not depend on the machine's own.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use clap::ValueEnum;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use rialto_btp::frame::{Frame, put_ilp_message};
use rialto_connector::{Action, Connector, Effects, Input, LinkId, Now, RequestId, Settings};
use rialto_journal::{Journal, Options, Replay, SimDisk};
use rialto_ledger::{AccountId, Ledger, Lsn, Record};
use rialto_packet::{Addr, FulfillBuilder, Prepare, PrepareBuilder, Timestamp};
use rialto_routing::Table;
use rialto_stream::{Keys, packet::PacketBuilder};
use serde_json::{Value, json};

use crate::{Result, node, process};

/// How often each part is done for a count; then twice as often.
const COUNT: u32 = 2_000;
/// How much more a part may take than its reference before the check fails, in percent.
const GROWTH_MAX_PERCENT: u64 = 10;
/// Reference counts, checked in.
const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.json");
/// Packets that the core is timed with: few enough to stay in the processor's cache, as those of one
/// turn do. The median of so many timings counts.
const TIMED: u32 = 256;
const TIMED_PARTS: usize = 2_001;

/// Options of `rialto-bench micro`.
#[derive(clap::Args)]
pub(crate) struct Micro {
    /// Compare every part with its reference; fail when one grew by more than a tenth
    #[arg(long)]
    check: bool,
    /// Write the references again
    #[arg(long, conflicts_with = "check")]
    update: bool,
    /// Do one part so often, and nothing else: what is counted
    #[arg(long, value_name = "PART", requires = "times")]
    part: Option<Part>,
    /// How often
    #[arg(long, requires = "part")]
    times: Option<u32>,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Read a Prepare with 300 bytes of data
    Decode,
    /// Give it another amount and expiry
    Patch,
    /// Find the next hop among 1,000 routes
    Route,
    /// Take from the limits, hold, commit, and hear that it is on disk
    HoldAndCommit,
    /// Append a commit record, in batches of 64
    JournalAppend,
    /// Write and read a BTP frame with a Prepare
    BtpFrame,
    /// Seal and open the data of a STREAM packet
    StreamSealAndOpen,
    /// All that the core does for a packet that is fulfilled
    PrepareAndFulfill,
}

impl Part {
    const ALL: &[Self] = &[
        Self::Decode,
        Self::Patch,
        Self::Route,
        Self::HoldAndCommit,
        Self::JournalAppend,
        Self::BtpFrame,
        Self::StreamSealAndOpen,
        Self::PrepareAndFulfill,
    ];

    fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    fn run(self, times: u32) -> Result<()> {
        match self {
            Self::Decode => decode(times),
            Self::Patch => patch(times),
            Self::Route => route(times),
            Self::HoldAndCommit => hold_and_commit(times),
            Self::JournalAppend => journal_append(times),
            Self::BtpFrame => btp_frame(times),
            Self::StreamSealAndOpen => stream(times),
            Self::PrepareAndFulfill => Core::new()?.run(times),
        }
    }
}

impl Micro {
    pub(crate) fn run(&self) -> Result<()> {
        if let (Some(part), Some(times)) = (self.part, self.times) {
            return part.run(times);
        }
        println!("prepare and fulfill, core, hot: {} ns", core_ns()?);
        if self.check || self.update {
            let counts = count_all()?;
            return match self.update {
                true => write(&counts),
                false => check(&counts, &references()?),
            };
        }
        Ok(())
    }
}

/// Time that the core takes for a packet, in nanoseconds: the median of several parts.
pub(crate) fn core_ns() -> Result<u64> {
    let mut core = Core::new()?;
    core.run(100 * TIMED)?;
    let mut found = Vec::new();
    for _ in 0..TIMED_PARTS {
        let packets = core.packets(TIMED)?;
        let started = Instant::now();
        core.forward(packets)?;
        found.push(u64::try_from(started.elapsed().as_nanos())? / u64::from(TIMED));
    }
    Ok(crate::suite::report::median(found.into_iter()))
}

fn references() -> Result<BTreeMap<String, u64>> {
    let text = std::fs::read(REFERENCE)?;
    let all: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_slice(&text)?;
    let of_this = all.get(std::env::consts::ARCH);
    of_this.cloned().ok_or_else(|| {
        format!(
            "no reference counts for {}: `rialto-bench micro --update` writes them",
            std::env::consts::ARCH
        )
        .into()
    })
}

fn write(counts: &BTreeMap<String, u64>) -> Result<()> {
    let text = std::fs::read(REFERENCE).unwrap_or_else(|_| b"{}".to_vec());
    let mut all: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_slice(&text)?;
    all.insert(std::env::consts::ARCH.to_owned(), counts.clone());
    std::fs::write(REFERENCE, serde_json::to_string_pretty(&all)? + "\n")?;
    println!("{}", serde_json::to_string_pretty(counts)?);
    Ok(())
}

/// Prints every part beside its reference; the error names those that grew.
fn check(counts: &BTreeMap<String, u64>, references: &BTreeMap<String, u64>) -> Result<()> {
    let mut grown = Vec::new();
    for (name, count) in counts {
        let Some(reference) = references.get(name) else {
            grown.push(format!("{name} has no reference"));
            continue;
        };
        println!("{name:<24} {count:>8} instructions, reference {reference}");
        if has_grown(*count, *reference) {
            grown.push(format!(
                "{name}: {count} instructions, reference {reference}"
            ));
        }
    }
    match grown.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "more than {GROWTH_MAX_PERCENT} % above the reference: {}; if it is meant, \
             `rialto-bench micro --update` writes bench/instructions.json again",
            grown.join("; ")
        )
        .into()),
    }
}

fn has_grown(count: u64, reference: u64) -> bool {
    count * 100 > reference * (100 + GROWTH_MAX_PERCENT)
}

fn count_all() -> Result<BTreeMap<String, u64>> {
    let valgrind = process::find("valgrind").ok_or(
        "no valgrind on the PATH, which counts instructions (Debian: apt-get install valgrind)",
    )?;
    let mut counts = BTreeMap::new();
    for part in Part::ALL {
        let once = count(&valgrind, *part, COUNT)?;
        let twice = count(&valgrind, *part, 2 * COUNT)?;
        counts.insert(part.name(), twice.saturating_sub(once) / u64::from(COUNT));
    }
    Ok(counts)
}

/// Instructions of a process of ours that does `part` so often.
fn count(valgrind: &Path, part: Part, times: u32) -> Result<u64> {
    let out: PathBuf = std::env::temp_dir().join(format!("rialto-micro-{}", std::process::id()));
    let output = Command::new(valgrind)
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args([
            "micro",
            "--part",
            &part.name(),
            "--times",
            &times.to_string(),
        ])
        .stdin(Stdio::null())
        .output()?;
    let _ = std::fs::remove_file(&out);
    let said = String::from_utf8_lossy(&output.stderr);
    collected(&said).ok_or_else(|| format!("valgrind did not count: {said}").into())
}

/// `==7== Collected : 1234` is what callgrind says at the end.
fn collected(said: &str) -> Option<u64> {
    let line = said.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

const WALL: i64 = 1_900_000_000_000;

fn prepare(condition: [u8; 32], destination: &str) -> Result<Vec<u8>> {
    let packet = PrepareBuilder {
        amount: 5,
        expires_at: Timestamp::from_unix_ms(WALL + 30_000),
        condition,
        destination: Addr::new(destination)?,
        data: &[7; 300],
    };
    Ok(packet.encode()?)
}

fn decode(times: u32) -> Result<()> {
    let packet = prepare([1; 32], "test.bench.receiver")?;
    for _ in 0..times {
        let parsed = Prepare::parse(std::hint::black_box(packet.as_slice()))?;
        std::hint::black_box((parsed.amount(), parsed.condition(), parsed.expires_at()));
    }
    Ok(())
}

fn patch(times: u32) -> Result<()> {
    let mut packet = Prepare::parse(prepare([1; 32], "test.bench.receiver")?)?;
    for number in 0..times {
        packet.set_amount(u64::from(number));
        packet.set_expires_at(Timestamp::from_unix_ms(WALL + i64::from(number)));
        std::hint::black_box(&packet);
    }
    Ok(())
}

fn route(times: u32) -> Result<()> {
    let mut table = Table::new([1, 2]);
    for number in 0..1_000 {
        table.put(&format!("test.net{}.n{number}", number % 10), || number);
    }
    let destinations: Vec<String> = (0..1_000)
        .map(|number| format!("test.net{}.n{number}.wallet.user{number}", number % 10))
        .collect();
    for destination in destinations.iter().cycle().take(usize::try_from(times)?) {
        let hop = table.longest_match(Addr::new(destination)?, |number| Some(*number));
        std::hint::black_box(hop);
    }
    Ok(())
}

/// An account with every limit set; `more` goes over it.
fn account(number: u32, more: &Value) -> Result<Record> {
    let mut settings = json!({
        "name": format!("a{number}"), "relation": "child", "asset": "USD/9",
        "limits": node::strict_limits(),
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    Ok(Record::AccountPut {
        id: AccountId(number),
        settings: serde_json::from_value(settings)?,
    })
}

fn hold_and_commit(times: u32) -> Result<()> {
    let mut ledger = Ledger::new(BTreeMap::new());
    for number in [1, 2] {
        ledger.apply(&account(number, &Value::Null)?)?;
    }
    let (payer, payee) = (AccountId(1), AccountId(2));
    let refused = |limit| format!("refused: {limit:?}");
    for number in 0..times {
        let lsn = Lsn(u64::from(number) + 1);
        ledger
            .take(payer, u64::from(number) * 1_000_000, 1)
            .map_err(refused)?;
        let hold = ledger.hold(payer, 1, payee, 1).map_err(refused)?;
        std::hint::black_box(ledger.commit(hold, lsn));
        ledger.synced(lsn);
    }
    Ok(())
}

fn journal_append(times: u32) -> Result<()> {
    let nothing = |_: Replay<'_>| Ok::<_, crate::Error>(());
    let (journal, _) = Journal::open(
        Arc::new(SimDisk::new()),
        Options {
            id: 7,
            ..Options::default()
        },
        nothing,
    )?;
    let record = [1; 33];
    for number in 0..times {
        journal.append(std::hint::black_box(&record))?;
        if number % 64 == 63 {
            journal.write()?;
        }
    }
    Ok(())
}

fn btp_frame(times: u32) -> Result<()> {
    let packet = prepare([1; 32], "test.bench.receiver")?;
    let mut out = Vec::new();
    for number in 0..times {
        out.clear();
        put_ilp_message(&mut out, number, &packet);
        let frame = Frame::decode(std::hint::black_box(&out)).map_err(|_| "it reads back")?;
        std::hint::black_box(frame.request_id);
    }
    Ok(())
}

fn stream(times: u32) -> Result<()> {
    let keys = Keys::new(&[7; 32]);
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let packet = PacketBuilder {
        packet_type: rialto_packet::PacketType::Prepare,
        sequence: 1,
        prepare_amount: 5,
        frames: &[],
    };
    let packet = packet.encode();
    for _ in 0..times {
        let sealed = keys.seal(&mut rng, &packet);
        let opened = keys.open(&sealed).ok_or("it opens again")?;
        std::hint::black_box((keys.fulfillment(&sealed), opened));
    }
    Ok(())
}

/// A core with two accounts, the second of which is reached over HTTP.
struct Core {
    connector: Connector,
    out: Effects,
    mono_ns: u64,
    fulfill: Bytes,
    prepare: Vec<u8>,
}

impl Core {
    fn new() -> Result<Self> {
        let settings = Settings::new("test.bench".parse()?);
        let mut connector = Connector::new(settings, [7; 32], ChaCha20Rng::seed_from_u64(1));
        let link = json!({"http": {"url": "http://127.0.0.1/", "token": ""}});
        connector.recover(Lsn(1), account(1, &Value::Null)?)?;
        connector.recover(Lsn(2), account(2, &link)?)?;
        let mut out = Effects::default();
        connector.recovered(&mut out);
        out.drain().for_each(drop);
        let fulfillment = [9; 32];
        let condition = rialto_stream::crypto::condition(&fulfillment);
        let fulfill = FulfillBuilder {
            fulfillment,
            data: &[],
        }
        .encode()?;
        Ok(Self {
            connector,
            out,
            mono_ns: 1,
            fulfill: fulfill.into(),
            prepare: prepare(condition, "test.bench.a2.receiver")?,
        })
    }

    fn run(&mut self, times: u32) -> Result<()> {
        let packets = self.packets(times)?;
        self.forward(packets)
    }

    /// As they come from a socket.
    fn packets(&self, times: u32) -> Result<Vec<BytesMut>> {
        let packets = (0..times).map(|_| BytesMut::from(self.prepare.as_slice()));
        Ok(packets.collect())
    }

    fn forward(&mut self, packets: Vec<BytesMut>) -> Result<()> {
        for packet in packets {
            self.mono_ns += 1_000_000;
            let now = Now {
                mono_ns: self.mono_ns,
                wall: Timestamp::from_unix_ms(WALL),
            };
            let input = Input::Prepare {
                account: AccountId(1),
                link: LinkId::Waiting { worker: 0 },
                request: RequestId(self.mono_ns),
                packet,
            };
            self.connector.handle(now, input, &mut self.out);
            let mut forwarded = None;
            for effect in self.out.drain() {
                if let Action::Forward { link, request, .. } = effect.action {
                    forwarded = Some((link, request));
                }
            }
            let (link, request) = forwarded.ok_or("the core did not forward the packet")?;
            let input = Input::Reply {
                link,
                request,
                packet: self.fulfill.clone(),
            };
            self.connector.handle(now, input, &mut self.out);
            if self.out.drain().count() != 1 {
                return Err("the core did not answer the packet".into());
            }
            let lsn = self.connector.lsn();
            self.connector
                .handle(now, Input::Synced(lsn), &mut self.out);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_still_fine() {
        assert!(!has_grown(110, 100));
        assert!(has_grown(111, 100));
        let counts = BTreeMap::from([("decode".to_owned(), 120), ("patch".to_owned(), 50)]);
        let references = BTreeMap::from([("decode".to_owned(), 100), ("patch".to_owned(), 100)]);
        let error = check(&counts, &references).unwrap_err().to_string();
        assert!(
            error.contains("decode: 120 instructions, reference 100"),
            "{error}"
        );
        assert!(!error.contains("patch"), "{error}");
        assert!(check(&counts, &counts).is_ok());
        assert!(check(&counts, &BTreeMap::new()).is_err());
    }

    #[test]
    fn what_callgrind_says() {
        assert_eq!(
            collected("==7== \n==7== Collected : 1234\n==7== \n"),
            Some(1234)
        );
        assert_eq!(collected("valgrind: no such file"), None);
    }

    #[test]
    fn every_part_does_what_it_says() {
        for part in Part::ALL {
            part.run(70)
                .unwrap_or_else(|error| panic!("{}: {error}", part.name()));
        }
    }

    #[test]
    fn every_part_has_a_reference_on_the_architecture_of_the_tests() {
        let text = std::fs::read(REFERENCE).unwrap();
        let all: BTreeMap<String, BTreeMap<String, u64>> = serde_json::from_slice(&text).unwrap();
        for (arch, counts) in all {
            for part in Part::ALL {
                assert!(counts.contains_key(&part.name()), "{arch}: {}", part.name());
            }
        }
    }
}
