//! The witness's naive books of settlements, and what must be true of them: for each key one effect,
//! whatever crashes. School arithmetic in units of 10^-18; nothing of the node's own.

use std::collections::{BTreeMap, BTreeSet};

use rialto_connector::{
    Action, Durable, Effect, EngineAsk,
    command::{CommandError, CommandErrorKind},
    settle::Credited,
};
use rialto_ledger::{
    AccountId, ChannelMoney, Credit, Ledger, Lsn, Record, Settlement, SettlementCause,
    SettlementId, SettlementState,
};
use rialto_packet::quantity::Quantity;

use crate::{
    check::{Books, Checked, Seen, Witness},
    plan::NodePlan,
    trouble::Trouble,
};

/// No scale in a plan is finer.
pub(crate) const FINEST_SCALE: u8 = 18;

/// In units of 10^-18.
pub(crate) fn fine(quantity: &Quantity) -> u128 {
    let amount: u128 = quantity.amount().parse().expect("plans have no more");
    amount * unit_of(quantity.scale())
}

/// One unit of a scale, in units of 10^-18.
pub(crate) fn unit_of(scale: u8) -> u128 {
    10_u128.pow((FINEST_SCALE - scale).into())
}

/// What an engine says that came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) account: AccountId,
    pub(crate) key: String,
    pub(crate) quantity: Quantity,
}

/// Settlements of one node, as its records tell.
#[derive(Debug, Default)]
pub(crate) struct Settled {
    outgoing: BTreeMap<SettlementId, Settlement>,
    by_key: BTreeMap<String, SettlementId>,
    request_keys: BTreeSet<String>,
    unended: BTreeMap<AccountId, SettlementId>,
    credits: BTreeMap<String, Credit>,
    /// In units of 10^-18.
    leftovers: BTreeMap<AccountId, u128>,
    /// Paid out less what came in.
    paid: BTreeMap<AccountId, i128>,
    /// Settled without being asked, less what was taken back of it.
    by_itself: BTreeMap<AccountId, i128>,
}

/// A settlement that an engine took.
#[derive(Debug)]
struct Taken {
    account: AccountId,
    /// In units of 10^-18.
    amount: u128,
    /// More than one only where it forgot that it had taken it.
    times: u32,
}

/// What engines and operators know of the settlements of one node, whatever it forgets itself.
#[derive(Debug, Default)]
pub(crate) struct Outside {
    /// Keys that have left the node towards an engine.
    told: BTreeSet<String>,
    /// Keys that an engine took, and what it pays for them.
    taken: BTreeMap<String, Taken>,
    /// Keys about which an engine forgot what it had said: what it does with them from then on is its own.
    disowned: BTreeSet<String>,
    /// Keys of incoming settlements that the node has acknowledged.
    acknowledged: BTreeSet<String>,
}

fn complain<T>(text: String) -> Result<T, String> {
    Err(text)
}

impl Settled {
    /// Enters a record; says whose balance changes by how much.
    pub(crate) fn enter(
        &mut self,
        plan: &NodePlan,
        record: &Record,
    ) -> Result<Option<(AccountId, i128)>, String> {
        if let Record::SettlementMade { settlement } = record {
            self.enter_made(settlement).map(Some)
        } else if let Record::SettlementMoved { id, state } = record {
            self.enter_moved(*id, state)
        } else if let Record::SettlementCredited { credit } = record {
            self.enter_credit(plan, credit).map(Some)
        } else if let Record::ChannelPut { money, .. } = record {
            match money {
                Some(ChannelMoney::Made { settlement }) => self.enter_made(settlement).map(Some),
                Some(ChannelMoney::Moved { id, state }) => self.enter_moved(*id, state),
                Some(ChannelMoney::Credited { credit }) => {
                    self.enter_credit(plan, credit).map(Some)
                }
                None => Ok(None),
            }
        } else {
            Ok(None)
        }
    }

    fn enter_made(&mut self, made: &Settlement) -> Result<(AccountId, i128), String> {
        let (id, account, amount) = (made.id, made.account, i128::from(made.amount));
        let is_new_key = self.by_key.insert(made.key.clone(), id).is_none();
        let asked = made.request_key.clone();
        let is_new_request = asked.is_none_or(|key| self.request_keys.insert(key));
        let is_alone = self.unended.insert(account, id).is_none();
        let is_new = self.outgoing.insert(id, made.clone()).is_none();
        if !(is_new && is_new_key && is_new_request && is_alone && amount > 0) {
            return complain(format!(
                "I8: a settlement of nothing, or a second: {made:?}"
            ));
        }
        *self.paid.entry(account).or_default() += amount;
        if made.cause != SettlementCause::Manual {
            *self.by_itself.entry(account).or_default() += amount;
        }
        Ok((account, -amount))
    }

    fn enter_moved(
        &mut self,
        id: SettlementId,
        state: &SettlementState,
    ) -> Result<Option<(AccountId, i128)>, String> {
        let moved = self.outgoing.get_mut(&id);
        let Some(moved) = moved.filter(|moved| !moved.state.is_ended()) else {
            return complain(format!("I8: settlement {} had ended, now {state:?}", id.0));
        };
        let (account, amount) = (moved.account, i128::from(moved.amount));
        moved.state = state.clone();
        if state.is_ended() {
            self.unended.remove(&account);
        }
        if *state != SettlementState::Cancelled {
            return Ok(None);
        }
        *self.paid.entry(account).or_default() -= amount;
        if moved.cause != SettlementCause::Manual {
            *self.by_itself.entry(account).or_default() -= amount;
        }
        Ok(Some((account, amount)))
    }

    fn enter_credit(
        &mut self,
        plan: &NodePlan,
        credit: &Credit,
    ) -> Result<(AccountId, i128), String> {
        let account = credit.account;
        if self.credits.contains_key(&credit.key) {
            return complain(format!("I8: credited twice: {credit:?}"));
        }
        let unit = unit_of(plan.account(account).scale);
        let leftover = self.leftovers.entry(account).or_default();
        let total = *leftover + fine(&credit.quantity);
        *leftover = total % unit;
        if total / unit != u128::from(credit.amount) || fine(&credit.leftover) != *leftover {
            return complain(format!(
                "G4: {} and {leftover} left are due: {credit:?}",
                total / unit
            ));
        }
        *self.paid.entry(account).or_default() -= i128::from(credit.amount);
        self.credits.insert(credit.key.clone(), credit.clone());
        Ok((account, credit.amount.into()))
    }

    /// Paid out less what came in.
    pub(crate) fn paid(&self, account: AccountId) -> i128 {
        self.paid.get(&account).copied().unwrap_or_default()
    }

    /// Those over channels.
    pub(crate) fn over_channels(&self) -> impl Iterator<Item = &Settlement> {
        let all = self.outgoing.values();
        all.filter(|of| of.channel.is_some())
    }

    pub(crate) fn by_itself(&self, account: AccountId) -> i128 {
        self.by_itself.get(&account).copied().unwrap_or_default()
    }

    /// After each step.
    pub(crate) fn check(&self, plan: &NodePlan, ledger: &Ledger) -> Checked {
        let mut assets: BTreeMap<_, i128> = BTreeMap::new();
        for (account, paid) in &self.paid {
            *assets.entry(plan.account(*account).asset()).or_default() += paid;
        }
        for (asset, settled) in ledger.settled() {
            let paid = assets.get(asset).copied().unwrap_or_default();
            if paid != settled {
                return complain(format!(
                    "I1: {settled} is settled in {asset} where {paid} is"
                ));
            }
        }
        if ledger.settlements_unended() != self.unended.len() {
            return complain("I8: settlements are under way that no record made".to_owned());
        }
        Ok(())
    }

    /// After a recovery and in the end: everything.
    pub(crate) fn check_all(&self, ledger: &Ledger) -> Checked {
        if *ledger.settlements() != self.outgoing {
            let (books, records) = (ledger.settlements(), &self.outgoing);
            return complain(format!(
                "I8: settlements are {books:?}, the records say {records:?}"
            ));
        }
        let is_known = |credit: &&Credit| {
            ledger
                .credit_by_key(&credit.key)
                .is_some_and(|c| c == *credit)
        };
        if let Some(forgotten) = self.credits.values().find(|credit| !is_known(credit)) {
            return complain(format!("I8: the books do not have {forgotten:?}"));
        }
        for account in ledger.accounts() {
            let left = fine(&ledger.leftover(account.id));
            let due = self.leftovers.get(&account.id).copied().unwrap_or_default();
            if left != due {
                let name = &account.settings.name;
                return complain(format!("G4: {left} is left of {name} where {due} is due"));
            }
        }
        Ok(())
    }
}

impl Outside {
    /// What a node forgot must not be known outside.
    pub(crate) fn check_recovered(&self, settled: &Settled) -> Checked {
        let mut told = self.told.iter();
        if let Some(key) = told.find(|key| !settled.by_key.contains_key(*key)) {
            return complain(format!("G4: an engine was told {key}, which is forgotten"));
        }
        let mut acknowledged = self.acknowledged.iter();
        if let Some(key) = acknowledged.find(|key| !settled.credits.contains_key(*key)) {
            return complain(format!("G4: {key} was acknowledged and is forgotten"));
        }
        Ok(())
    }
}

/// A settlement is made because an operator asked, or because that much was earned.
fn check_made(books: &Books, seen: &Seen, settlement: &Settlement) -> Checked {
    let (id, account) = (settlement.account, books.plan.account(settlement.account));
    let is_asked = matches!(seen, Seen::Operator);
    let is_manual = settlement.cause == SettlementCause::Manual;
    let by_itself = books.settled.by_itself(id);
    let of = |sums: &BTreeMap<_, i128>| sums.get(&id).copied().unwrap_or_default();
    let earned = of(&books.earned) + of(&books.repaid);
    let terms = account.terms.as_ref();
    let ahead = terms.map_or(0, |terms| -terms.settle_to);
    let has_means = terms.is_some_and(|terms| match settlement.channel {
        Some(_) => terms.speaks,
        None => terms.engine_scale.is_some(),
    });
    if is_asked != is_manual || !has_means {
        return complain(format!("nobody asked for it: {settlement:?}"));
    }
    // They may have paid ahead: that is theirs to spend, and not to be paid back.
    if !is_manual && by_itself > earned + ahead.max(0) {
        return complain(format!(
            "I8: {by_itself} was settled of {earned} that {} earned",
            account.name
        ));
    }
    Ok(())
}

impl Witness {
    /// Records and effects of a step that have to do with settlements.
    pub(crate) fn observe_settled(
        &mut self,
        node: usize,
        seen: &Seen,
        records: &[Record],
        effects: &[Effect],
    ) -> Checked {
        let books = &self.nodes[node];
        let mut credited = None;
        let mut made = None;
        for record in records {
            if let Record::ChannelPut { money, .. } = record {
                match money {
                    Some(ChannelMoney::Made { settlement }) => {
                        check_made(books, seen, settlement)?;
                    }
                    Some(ChannelMoney::Moved { state, .. }) => {
                        let is_asked = matches!(seen, Seen::Operator);
                        if (*state == SettlementState::Open) != is_asked {
                            return complain(format!("nobody asked for it: {record:?}"));
                        }
                    }
                    Some(ChannelMoney::Credited { .. })
                        if !matches!(seen, Seen::Prepare { .. }) =>
                    {
                        return complain(format!("I8: nobody said so: {record:?}"));
                    }
                    Some(ChannelMoney::Credited { .. }) | None => {}
                }
            } else if let Record::SettlementMade { settlement } = record {
                check_made(books, seen, settlement)?;
                made = Some(settlement);
            } else if let Record::SettlementMoved { id, state } = record {
                let moved = &books.settled.outgoing[id];
                let is_taken = books.outside.taken.contains_key(&moved.key);
                // One that forgot what it took may refuse it.
                let is_refusable = !is_taken || books.outside.disowned.contains(&moved.key);
                let is_right = match state {
                    SettlementState::Open => matches!(seen, Seen::Operator) && is_refusable,
                    SettlementState::Accepted => is_taken,
                    SettlementState::Parked { .. } => is_refusable,
                    SettlementState::Cancelled => matches!(seen, Seen::Operator) && is_refusable,
                };
                if !is_right {
                    return complain(format!(
                        "I8: it is {state:?}, its engine has it: {is_taken}: {moved:?}"
                    ));
                }
            } else if let Record::SettlementCredited { credit } = record {
                credited = Some(credit);
            }
        }
        if let Some(credit) = credited {
            let is_right = |call: &Call| {
                (call.account, &call.key, &call.quantity)
                    == (credit.account, &credit.key, &credit.quantity)
            };
            if !matches!(seen, Seen::Credit(call) if is_right(call)) {
                return complain(format!("I8: no engine said so: {credit:?}"));
            }
            self.tally.credits += 1;
        }
        let books = &self.nodes[node];
        for effect in effects {
            let Action::Engine { account, ask, .. } = &effect.action else {
                continue;
            };
            let EngineAsk::Settle { id, key, quantity } = ask else {
                continue;
            };
            let Durable::OnDisk(_) = effect.after else {
                return complain(format!(
                    "G4: an engine is to be told before the disk: {ask:?}"
                ));
            };
            let known = books.settled.outgoing.get(id);
            let unit = unit_of(books.plan.account(*account).scale);
            let is_right = |known: &&Settlement| {
                known.account == *account
                    && known.key == *key
                    && known.state == SettlementState::Open
                    && u128::from(known.amount) * unit == fine(quantity)
            };
            if known.filter(is_right).is_none() {
                return complain(format!("I8: {ask:?} is not what was recorded: {known:?}"));
            }
            made = made.filter(|made| made.id != *id);
        }
        if let Some(untold) = made {
            return complain(format!("G4: nobody is to be told of {untold:?}"));
        }
        Ok(())
    }

    /// An engine is being told.
    pub(crate) fn engine_told(&mut self, node: usize, key: &str) {
        self.nodes[node].outside.told.insert(key.to_owned());
    }

    /// An engine takes a settlement that it does not know, and pays.
    pub(crate) fn engine_accepts(
        &mut self,
        node: usize,
        account: AccountId,
        key: &str,
        amount: u128,
    ) -> Checked {
        let books = &mut self.nodes[node];
        let taken = books.outside.taken.entry(key.to_owned());
        let taken = taken.or_insert(Taken {
            account,
            amount,
            times: 0,
        });
        taken.times += 1;
        let is_again = taken.times > 1;
        let is_disowned = books.outside.disowned.contains(key);
        let id = books.settled.by_key.get(key);
        let known = id.map(|id| &books.settled.outgoing[id]);
        let unit = unit_of(books.plan.account(account).scale);
        let is_right = known.is_some_and(|known| {
            (known.account, u128::from(known.amount) * unit) == (account, amount)
                && (known.state != SettlementState::Cancelled || is_disowned)
        });
        if !is_right || is_again && !is_disowned {
            return complain(format!(
                "I8: {key} is paid, which the books have as {known:?}"
            ));
        }
        match is_again {
            true => self.tally.troubles.count(Trouble::PaidAgain),
            false => self.tally.settlements += 1,
        }
        Ok(())
    }

    /// An engine forgets what it said to these keys.
    pub(crate) fn engine_forgets(&mut self, node: usize, keys: impl IntoIterator<Item = String>) {
        self.nodes[node].outside.disowned.extend(keys);
    }

    /// What a node says to an engine's call: nothing is credited twice, nothing refused that is good.
    pub(crate) fn credit_decided(
        &self,
        node: usize,
        call: &Call,
        before: Option<&Credit>,
        decided: &Result<(Credited, Lsn), CommandError>,
    ) -> Checked {
        let books = &self.nodes[node];
        let after = books.settled.credits.get(&call.key);
        let is_known = usize::try_from(call.account.0)
            .is_ok_and(|number| (1..=books.plan.accounts.len()).contains(&number));
        let is_right = match (before, decided) {
            (Some(before), Ok((Credited::Before { amount }, _))) => {
                let same = (before.account, &before.quantity) == (call.account, &call.quantity);
                same && before.amount == *amount
            }
            (Some(before), Err(error)) => {
                let same = (before.account, &before.quantity) == (call.account, &call.quantity);
                !same && error.kind == CommandErrorKind::Conflict
            }
            (None, Ok((Credited::New { amount }, _))) => {
                after.is_some_and(|after| after.amount == *amount)
            }
            (None, Err(error)) if is_known => {
                let most = u128::from(u64::MAX) * unit_of(books.plan.account(call.account).scale);
                error.kind == CommandErrorKind::Invalid
                    && (call.key.is_empty() || fine(&call.quantity) > most)
            }
            (None, Err(error)) => error.kind == CommandErrorKind::NotFound,
            (Some(_), Ok((Credited::New { .. }, _))) | (None, Ok((Credited::Before { .. }, _))) => {
                false
            }
        };
        match is_right && (decided.is_ok() || after == before) {
            true => Ok(()),
            false => complain(format!(
                "I8: {decided:?} is the answer to {call:?}, known before as {before:?}"
            )),
        }
    }

    /// The credit of a key, as the records tell.
    pub(crate) fn credit(&self, node: usize, key: &str) -> Option<Credit> {
        self.nodes[node].settled.credits.get(key).cloned()
    }

    /// The engine hears that it was credited.
    pub(crate) fn acknowledged(&mut self, node: usize, key: &str) {
        self.nodes[node].outside.acknowledged.insert(key.to_owned());
    }

    /// Settlements of a node that an operator has to decide on.
    pub(crate) fn parked(&self, node: usize) -> Vec<SettlementId> {
        let outgoing = self.nodes[node].settled.outgoing.values();
        let parked = outgoing.filter(|of| matches!(of.state, SettlementState::Parked { .. }));
        parked.map(|of| of.id).collect()
    }

    /// Once all is quiet, of an account whose engine is there: every settlement has ended, and the
    /// engine has those that the books say that it has, each once. One that forgot what it said may have
    /// paid more often. Gives what was paid and what came in, in units of 10^-18.
    pub(crate) fn check_engine(
        &self,
        node: usize,
        account: AccountId,
    ) -> Result<(u128, u128), String> {
        let books = &self.nodes[node];
        let unit = unit_of(books.plan.account(account).scale);
        let name = &books.plan.account(account).name;
        for of in books.settled.outgoing.values() {
            if of.account != account || of.channel.is_some() {
                continue;
            }
            let taken = books.outside.taken.get(&of.key);
            let times = taken.map_or(0, |taken| taken.times);
            let is_disowned = books.outside.disowned.contains(&of.key);
            let is_right = match of.state {
                SettlementState::Accepted => times == 1 || times > 1 && is_disowned,
                SettlementState::Cancelled => times == 0 || is_disowned,
                SettlementState::Open | SettlementState::Parked { .. } => {
                    return complain(format!("G4: {name} was never settled: {of:?}"));
                }
            };
            if !is_right {
                return complain(format!("G4: {name} was paid {times} times: {of:?}"));
            }
        }
        let taken = books.outside.taken.values();
        let taken = taken.filter(|taken| taken.account == account);
        let paid = taken
            .map(|taken| taken.amount * u128::from(taken.times))
            .sum();
        let credits = books.settled.credits.values();
        let by_engine = |credit: &&Credit| !credit.key.starts_with("channel ");
        let credits = credits.filter(|credit| credit.account == account);
        let credits = credits.filter(by_engine);
        let credited: u128 = credits.map(|credit| u128::from(credit.amount) * unit).sum();
        let left = books.settled.leftovers.get(&account).copied();
        Ok((paid, credited + left.unwrap_or_default()))
    }
}
