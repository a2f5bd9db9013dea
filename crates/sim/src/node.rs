//! One node: the real core, the real journal and the real effect gate, and what a shell keeps.

use std::sync::Arc;

use rialto_connector::{Connector, Effects, Input, Now, command::CommandError, settle::Credited};
use rialto_journal::{Journal, JournalError, Options, Replay, SimDisk};
use rialto_ledger::{Lsn, Record};
use rialto_packet::Timestamp;

use crate::{
    check::{Death, Links, Moment, Witness},
    gate::Gate,
    mutant::Mutant,
    rng::Rng,
};

/// Wall clock at simulated time zero, milliseconds since 1970.
const WALL_AT_ZERO_MS: i64 = 1_900_000_000_000;

/// The date at a simulated time, by a clock that is right.
pub(crate) fn wall(now_ns: u64) -> Timestamp {
    let ms = i64::try_from(now_ns / 1_000_000).expect("runs are short");
    Timestamp::from_unix_ms(WALL_AT_ZERO_MS + ms)
}

/// A node, alive or not.
pub(crate) struct Node {
    pub(crate) disk: SimDisk,
    pub(crate) live: Option<Box<Live>>,
    /// How it died, until it is up again.
    pub(crate) death: Option<Death>,
    /// Counts lives: what was planned for an earlier one is void.
    pub(crate) life: u32,
    /// How wrong its wall clock is.
    pub(crate) skew_ms: i64,
    /// Until when its disk is slow.
    pub(crate) slow_until_ns: u64,
    pub(crate) stream_secret: [u8; 32],
    pub(crate) segment_bytes: u64,
    /// An operator changed something that is not yet set back.
    pub(crate) is_changed: bool,
}

/// A running node.
pub(crate) struct Live {
    pub(crate) core: Connector,
    pub(crate) journal: Journal,
    pub(crate) gate: Gate,
    pub(crate) out: Effects,
    boot_ns: u64,
    /// All of this life.
    pub(crate) links: Links,
    pub(crate) inbox: Vec<Input>,
    pub(crate) has_turn: bool,
    pub(crate) timer_at_ns: Option<u64>,
    pub(crate) has_sync: bool,
    /// The journal failed.
    pub(crate) failed: bool,
    pub(crate) fuse: Option<Fuse>,
    /// Answers to engines that wait for the disk: until which record, which engine and which call.
    pub(crate) answers: Vec<(Lsn, usize, usize, Result<Credited, CommandError>)>,
}

/// A death that is coming.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fuse {
    /// Moments between two effects until then.
    pub(crate) left: u32,
    pub(crate) power_cut: bool,
    /// Within the next write instead.
    pub(crate) in_write: bool,
}

impl Live {
    /// Opens the disk and recovers, as the real node does.
    pub(crate) fn open(
        node: &Node,
        now_ns: u64,
        mut core: Connector,
        rng: &mut Rng,
        witness: &Witness,
        index: usize,
        mutant: Option<Mutant>,
    ) -> Result<(Self, u64), String> {
        let options = Options {
            id: rng.below(u64::MAX),
            segment_bytes: node.segment_bytes,
        };
        let mut commit = None;
        let opened = Journal::open(Arc::new(node.disk.clone()), options, |replay| {
            let (lsn, bytes) = match replay {
                Replay::Checkpoint { at, record } => (at, record),
                Replay::Record { lsn, payload } => {
                    witness.check_replayed(index, lsn.0, payload)?;
                    (lsn, payload)
                }
            };
            let record = Record::decode(bytes).map_err(|error| error.to_string())?;
            if let Record::Commit(_) = record
                && let Some((lsn, held)) = commit.replace((Lsn(lsn.0), record.clone()))
                && mutant == Some(Mutant::CommitForgotten)
            {
                return core.recover(lsn, held).map_err(|error| error.to_string());
            }
            if mutant == Some(Mutant::CommitForgotten) && matches!(record, Record::Commit(_)) {
                return Ok(());
            }
            let recovered = core.recover(Lsn(lsn.0), record);
            recovered.map_err(|error| error.to_string())
        });
        let (journal, recovered) =
            opened.map_err(|error: JournalError| format!("recovery refused: {error}"))?;
        let last = recovered.last.0;
        let again = match mutant {
            Some(Mutant::CommitReplayedTwice) => commit.map(|(_, record)| record),
            Some(Mutant::TornRecordAccepted) if recovered.torn.is_some() => {
                witness.record_after(index, last)
            }
            _ => None,
        };
        if let Some(record) = again {
            let applied = core.recover(Lsn(last), record);
            applied.map_err(|error| error.to_string())?;
        }
        let live = Self {
            core,
            journal,
            gate: Gate::default(),
            out: Effects::default(),
            boot_ns: now_ns,
            links: Links::default(),
            inbox: Vec::new(),
            has_turn: false,
            timer_at_ns: None,
            has_sync: false,
            failed: false,
            fuse: None,
            answers: Vec::new(),
        };
        Ok((live, last))
    }

    /// The node's clocks.
    pub(crate) fn now(&self, now_ns: u64, skew_ms: i64, mutant: Option<Mutant>) -> Now {
        let mut mono_ns = now_ns - self.boot_ns;
        if mutant == Some(Mutant::ClockStepRevives) {
            mono_ns = mono_ns.saturating_add_signed(skew_ms * 1_000_000);
        }
        let wall = wall(now_ns).plus_ms(skew_ms);
        Now { mono_ns, wall }
    }

    pub(crate) fn moment(&self, now_ns: u64, skew_ms: i64) -> Moment {
        Moment {
            now_ns,
            wall: wall(now_ns).plus_ms(skew_ms),
            boot_ns: self.boot_ns.into(),
        }
    }

    /// Whether this is the moment to die.
    pub(crate) fn burns(&mut self) -> bool {
        match &mut self.fuse {
            Some(Fuse {
                in_write: false,
                left: 0,
                ..
            }) => true,
            Some(fuse) => {
                fuse.left = fuse.left.saturating_sub(1);
                false
            }
            None => false,
        }
    }

    pub(crate) fn death(&self, power_cut: bool) -> Death {
        Death {
            power_cut,
            failed: self.failed,
            written: self.journal.written().0,
            synced: self.journal.synced().0,
        }
    }
}
