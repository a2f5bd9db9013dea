//! Statements of accounts: made and signed by the node, checked and compared by anybody.
//!
//! A statement is one line of JSON, `{"statement":TEXT,"signature":BASE64}`; the signature and the hash
//! by which the next statement names this one cover TEXT byte for byte. Nothing here needs a node but
//! [`Connector::statement_close`].

use std::{collections::BTreeMap, fmt};

use rialto_channel::{Digest, PublicKey, Signature};
use rialto_ledger::{Entry, EntryKind, Means, MoreEntries, Record, Statement, text};
use rialto_packet::{Address, money::Asset};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{
    Connector,
    command::CommandError,
    io::{Effects, Now},
};

/// The version of the text.
const FORMAT: u8 = 1;

/// Longest line that is read: a statement with all entries that it can have is shorter.
pub const LINE_BYTES_MAX: usize = 1 << 20;

/// What a statement says. Amounts are in units of the asset, balances as the node sees them: positive
/// is owed to the account holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementText {
    /// Version of the text.
    pub rialto_statement: u8,
    /// Whose public key signed it.
    pub key: PublicKey,
    /// Address of the node that made it, where it had one.
    #[serde(with = "text::option")]
    pub node: Option<Address>,
    /// Its name for the account.
    pub account: String,
    /// Address of the account, where it had one.
    #[serde(with = "text::option")]
    pub peer: Option<Address>,
    /// What amounts count.
    #[serde(with = "text")]
    pub asset: Asset,
    /// Counted from 1.
    pub number: u32,
    /// When the statement before was made (milliseconds since 1970); null in the first one.
    pub from_ms: Option<i64>,
    /// When this one was made.
    pub to_ms: i64,
    /// The balance that the statement before ended with.
    #[serde(with = "text")]
    pub opening: i128,
    /// What packets of the account holder paid the node.
    #[serde(with = "text")]
    pub packets_in: u128,
    /// What packets paid the account holder.
    #[serde(with = "text")]
    pub packets_out: u128,
    /// Settlements and adjustments, in the order of the journal.
    pub entries: Vec<Entry>,
    /// Those beyond the most that are listed.
    pub more: MoreEntries,
    /// The balance now.
    #[serde(with = "text")]
    pub closing: i128,
    /// SHA-256 of the text before this one, as hexadecimal digits.
    pub previous: Option<String>,
}

impl Connector {
    /// Closes the period of an account and begins the next one: makes the statement, signs it and
    /// records it. Packets in flight are not in it; they come into the statement of the period in
    /// which they are fulfilled.
    ///
    /// # Errors
    /// There is no such account.
    pub fn statement_close(
        &mut self,
        now: Now,
        account: &str,
        out: &mut Effects,
    ) -> Result<Statement, CommandError> {
        let account = self
            .ledger
            .account_by_name(account)
            .ok_or_else(|| CommandError::not_found("account", account))?;
        let period = self.ledger.period(account.id).cloned().unwrap_or_default();
        let (closing, sent) = (account.balance(), account.sent());
        let signed = |amount| i128::try_from(amount).expect("sums of packets fit 2^127");
        let packets_out = closing - period.opening - period.entries_amount() + signed(sent);
        let text = StatementText {
            rialto_statement: FORMAT,
            key: self.channels.key.public(),
            node: self.address().cloned(),
            account: account.settings.name.clone(),
            peer: account.settings.ilp_address.clone(),
            asset: account.settings.asset.clone(),
            number: period.last + 1,
            from_ms: period.since_ms,
            to_ms: now.wall.unix_ms(),
            opening: period.opening,
            packets_in: sent,
            packets_out: u128::try_from(packets_out)
                .expect("what packets paid out is a sum of amounts"),
            entries: period.entries,
            more: period.more,
            closing,
            previous: period.previous,
        };
        let json = serde_json::to_string(&text).expect("a statement has text keys");
        let statement = Statement {
            account: account.id,
            account_name: text.account,
            number: text.number,
            hash: hash(&json),
            signature: self
                .channels
                .key
                .sign_statement(json.as_bytes())
                .to_string(),
            text: json,
            closing,
            closed_at_ms: text.to_ms,
        };
        let record = Record::StatementClosed {
            statement: Box::new(statement.clone()),
        };
        self.record(&record, out);
        Ok(statement)
    }
}

/// SHA-256 of a text, as hexadecimal digits.
fn hash(text: &str) -> String {
    Digest::of(text.as_bytes()).to_string()
}

/// Why statements cannot be believed, or compared.
#[derive(Debug, Error)]
pub enum StatementError {
    /// There is none.
    #[error("there is no statement in it")]
    Empty,
    /// A line is not one.
    #[error("line {line} is no statement: {why}")]
    NotOne {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        why: String,
    },
    /// The text is not what was signed.
    #[error("statement {0}: the signature does not fit the text: something in it was changed")]
    Signature(u32),
    /// It does not add up.
    #[error(
        "statement {number}: it ends with {closing}, but opening, packets and entries make {sum}"
    )]
    Sum {
        /// Which.
        number: u32,
        /// What it says.
        closing: i128,
        /// What it adds up to.
        sum: i128,
    },
    /// It does not continue the one before.
    #[error("statement {number}: {what} is not that of statement {before}, which comes before it")]
    Chain {
        /// Which.
        number: u32,
        /// The number of the line before.
        before: u32,
        /// What differs.
        what: &'static str,
    },
    /// Two files are not about the two sides of one account.
    #[error("the two files cannot be compared: {0}")]
    NotMirrored(String),
}

/// The statements of one account that follow each other, each of them checked.
#[derive(Debug)]
pub struct Statements(Vec<StatementText>);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    statement: &'a RawValue,
    signature: Signature,
}

/// One line of a file, without the line feed.
pub fn line(text: &str, signature: &str) -> String {
    format!("{{\"statement\":{text},\"signature\":\"{signature}\"}}")
}

impl Statements {
    /// Reads a file and checks it: signatures, sums, and that each statement continues the one before.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn check(file: &str) -> Result<Self, StatementError> {
        let mut checked: Vec<(StatementText, String)> = Vec::new();
        let lines = file.lines().enumerate();
        for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let not_one = |why: String| StatementError::NotOne {
                line: index + 1,
                why,
            };
            if line.len() > LINE_BYTES_MAX {
                return Err(not_one(format!("longer than {LINE_BYTES_MAX} bytes")));
            }
            let parts: Line<'_> =
                serde_json::from_str(line).map_err(|error| not_one(error.to_string()))?;
            let json = parts.statement.get();
            let text: StatementText =
                serde_json::from_str(json).map_err(|error| not_one(error.to_string()))?;
            if text.rialto_statement != FORMAT {
                let version = text.rialto_statement;
                return Err(not_one(format!("version {version} is not known")));
            }
            let number = text.number;
            if !text
                .key
                .verifies_statement(json.as_bytes(), &parts.signature)
            {
                return Err(StatementError::Signature(number));
            }
            let closing = text.closing;
            let sum = text
                .sum()
                .ok_or_else(|| not_one("its amounts overflow".to_owned()))?;
            if sum != closing {
                return Err(StatementError::Sum {
                    number,
                    closing,
                    sum,
                });
            }
            if let Some((last, last_json)) = checked.last() {
                text.continues(last, last_json)?;
            }
            checked.push((text, json.to_owned()));
        }
        match checked.is_empty() {
            true => Err(StatementError::Empty),
            false => Ok(Self(checked.into_iter().map(|(text, _)| text).collect())),
        }
    }

    /// Oldest first; at least one.
    pub fn texts(&self) -> &[StatementText] {
        &self.0
    }

    fn first(&self) -> &StatementText {
        self.0.first().expect("there is at least one")
    }

    fn last(&self) -> &StatementText {
        self.0.last().expect("there is at least one")
    }

    fn sum(&self, amount: impl Fn(&StatementText) -> u128) -> i128 {
        let amounts = self.0.iter().map(amount);
        i128::try_from(amounts.fold(0, u128::saturating_add)).unwrap_or(i128::MAX)
    }

    /// What settlements and adjustments did to the balance.
    fn entries_amount(&self) -> i128 {
        let amount = |text: &StatementText| text.closing.saturating_sub(text.opening);
        let all = self.0.iter().map(amount).fold(0, i128::saturating_add);
        all.saturating_add(self.sum(|text| text.packets_in))
            .saturating_sub(self.sum(|text| text.packets_out))
    }

    fn entries(&self, kinds: &[EntryKind]) -> Vec<&Entry> {
        let entries = self.0.iter().flat_map(|text| &text.entries);
        entries
            .filter(|entry| kinds.contains(&entry.kind))
            .collect()
    }
}

impl StatementText {
    /// What it adds up to.
    fn sum(&self) -> Option<i128> {
        let mut sum = self
            .opening
            .checked_sub(i128::try_from(self.packets_in).ok()?)?
            .checked_add(i128::try_from(self.packets_out).ok()?)?
            .checked_add(self.more.amount)?;
        for entry in &self.entries {
            sum = sum.checked_add(entry.amount)?;
        }
        Some(sum)
    }

    fn continues(&self, last: &Self, last_json: &str) -> Result<(), StatementError> {
        let facts = [
            ("its account", self.account == last.account),
            ("its asset", self.asset == last.asset),
            ("its key", self.key == last.key),
            (
                "its number",
                Some(self.number) == last.number.checked_add(1),
            ),
            ("its beginning", self.from_ms == Some(last.to_ms)),
            ("its opening balance", self.opening == last.closing),
            (
                "the statement that it names as the one before",
                self.previous.as_deref() == Some(&hash(last_json)),
            ),
        ];
        match facts.iter().find(|(_, holds)| !holds) {
            None => Ok(()),
            Some((what, _)) => Err(StatementError::Chain {
                number: self.number,
                before: last.number,
                what,
            }),
        }
    }
}

/// The first thing in which two sides differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// In the first file, in units as its node sees them.
    pub mine: i128,
    /// In the second one, with the sign turned round: as the first node would see them.
    pub theirs: i128,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, mine, theirs } = self;
        let units = mine.abs_diff(*theirs);
        write!(
            f,
            "{what}: {mine} here, {theirs} there: {units} units differ"
        )
    }
}

/// Compares what two nodes say of what is between them, both checked: opening balances, packets in each
/// direction, settlements one by one, adjustments, closing balances. `None`: they agree to the unit.
///
/// # Errors
/// The files are about different assets, or about accounts that do not name each other.
pub fn reconcile(
    mine: &Statements,
    theirs: &Statements,
) -> Result<Option<Difference>, StatementError> {
    let (my_first, their_first) = (mine.first(), theirs.first());
    if my_first.asset != their_first.asset {
        let message = format!(
            "one counts {}, the other {}",
            my_first.asset, their_first.asset
        );
        return Err(StatementError::NotMirrored(message));
    }
    for (here, there) in [(my_first, their_first), (their_first, my_first)] {
        if let (Some(peer), Some(node)) = (&here.peer, &there.node)
            && peer != node
        {
            let message = format!(
                "{} is about {peer}, and the other is of {node}",
                here.account
            );
            return Err(StatementError::NotMirrored(message));
        }
    }
    let same = |what: &str, mine: i128, theirs: i128| {
        let differs = mine != theirs;
        differs.then(|| Difference {
            what: what.to_owned(),
            mine,
            theirs,
        })
    };
    let packets_in = |text: &StatementText| text.packets_in;
    let packets_out = |text: &StatementText| text.packets_out;
    let out = [EntryKind::SettledOut, EntryKind::SettlementCancelled];
    // Where there were too many to list, the lists of both sides may end at different places.
    let listed = [mine, theirs]
        .iter()
        .all(|side| side.0.iter().all(|text| text.more.count == 0));
    let by_kind = |mine_of: &[EntryKind], theirs_of: &[EntryKind]| {
        let compare = listed || mine.entries_amount() != theirs.entries_amount().saturating_neg();
        let entries = || one_by_one(mine.entries(mine_of), theirs.entries(theirs_of));
        compare.then(entries).flatten()
    };
    let difference = same(
        "opening balance",
        my_first.opening,
        their_first.opening.saturating_neg(),
    )
    .or_else(|| {
        let theirs = theirs.sum(packets_out);
        same("packets that came in here", mine.sum(packets_in), theirs)
    })
    .or_else(|| {
        let theirs = theirs.sum(packets_in);
        same("packets that went out here", mine.sum(packets_out), theirs)
    })
    .or_else(|| by_kind(&out, &[EntryKind::SettledIn]))
    .or_else(|| by_kind(&[EntryKind::SettledIn], &out))
    .or_else(|| by_kind(&[EntryKind::Adjusted], &[EntryKind::Adjusted]))
    .or_else(|| {
        let closing = theirs.last().closing;
        same(
            "closing balance",
            mine.last().closing,
            closing.saturating_neg(),
        )
    });
    Ok(difference)
}

/// The first entry that has no counterpart. An engine may make one payment of several, or several of
/// one: what adds up is no difference. A settlement that was taken back and the one that it takes back
/// cancel each other.
fn one_by_one(mine: Vec<&Entry>, theirs: Vec<&Entry>) -> Option<Difference> {
    if amount(&mine) == amount(&theirs).saturating_neg() {
        return None;
    }
    let (mut mine, mut theirs) = (without_taken_back(mine), without_taken_back(theirs));
    // Those by hand have one reference on both sides; engines and channels have names of their own.
    let named = |entry: &Entry, amount| (entry.reference.clone(), amount);
    pair_off(
        (&mut mine, |entry| named(entry, entry.amount)),
        (&mut theirs, |entry| {
            named(entry, entry.amount.saturating_neg())
        }),
    );
    pair_off(
        (&mut mine, |entry| entry.amount),
        (&mut theirs, |entry| entry.amount.saturating_neg()),
    );
    let (here, there) = (mine.first(), theirs.first());
    let name = |entry: &Entry, side: &str| {
        let kind = match entry.kind {
            EntryKind::SettledOut => "settlement paid",
            EntryKind::SettledIn => "settlement received",
            EntryKind::SettlementCancelled => "settlement taken back",
            EntryKind::Adjusted => "adjustment",
        };
        let by = match entry.means {
            Some(Means::Hand) => " by hand",
            Some(Means::Engine | Means::Channel | Means::Accounting) | None => "",
        };
        format!("{kind} {side}{by}, '{}'", entry.reference)
    };
    let names = [
        here.map(|e| name(e, "here")),
        there.map(|e| name(e, "there")),
    ];
    Some(Difference {
        what: names.into_iter().flatten().collect::<Vec<_>>().join(" / "),
        mine: here.map_or(0, |entry| entry.amount),
        theirs: there.map_or(0, |entry| entry.amount.saturating_neg()),
    })
}

fn without_taken_back(entries: Vec<&Entry>) -> Vec<&Entry> {
    let (mut back, mut rest): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|entry| entry.kind == EntryKind::SettlementCancelled);
    pair_off(
        (&mut rest, |entry| (entry.reference.clone(), entry.amount)),
        (&mut back, |entry| {
            (entry.reference.clone(), entry.amount.saturating_neg())
        }),
    );
    rest.extend(back); // of settlements of an earlier period
    rest
}

/// Removes from both sides, from the first one on, what has the same key on the other.
fn pair_off<K: Ord>(
    (mine, my_key): (&mut Vec<&Entry>, impl Fn(&Entry) -> K),
    (theirs, their_key): (&mut Vec<&Entry>, impl Fn(&Entry) -> K),
) {
    let mut offered: BTreeMap<K, usize> = BTreeMap::new();
    for entry in &*theirs {
        *offered.entry(their_key(entry)).or_default() += 1;
    }
    let mut paired: BTreeMap<K, usize> = BTreeMap::new();
    let take = |counts: &mut BTreeMap<K, usize>, key: &K| {
        let count = counts.get_mut(key).filter(|count| **count > 0);
        count.map(|count| *count -= 1).is_some()
    };
    mine.retain(|entry| {
        let key = my_key(entry);
        let is_paired = take(&mut offered, &key);
        if is_paired {
            *paired.entry(key).or_default() += 1;
        }
        !is_paired
    });
    theirs.retain(|entry| !take(&mut paired, &their_key(entry)));
}

fn amount(entries: &[&Entry]) -> i128 {
    let amounts = entries.iter().map(|entry| entry.amount);
    amounts.fold(0, i128::saturating_add)
}
