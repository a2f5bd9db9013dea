//! Settlement engines: one for each account that has terms. Those of two nodes that are neighbours
//! keep one ledger, so that what the one pays comes in at the other.
//!
//! One that refused a settlement does not take it from a request that was sent before that. One that
//! loses its state, which RFC 38 does not foresee (Idempotence), still has its ledger: it finds there
//! whatever came in and reports all of it again, under the same keys. What it took, and forgot, it may
//! pay twice; that is its own fault, and the only one that it is forgiven.

use std::collections::BTreeMap;

use rialto_channel::{ChannelId, Kind};
use rialto_connector::{
    ChannelRequest, Connector, Effects, EngineAsk, Input, Now, command::CommandError,
    settle::Credited, settle::EngineAnswer,
};
use rialto_ledger::{AccountId, Lsn, SettlementId};
use rialto_packet::quantity::Quantity;

use crate::{
    check::Checked,
    mutant::Mutant,
    plan::{Name, Network},
    settle::{Call, fine, unit_of},
    trouble::Trouble,
    world::{Event, MS, S, Work, World, note},
};

/// After so long nobody waits for an answer any more.
const ANSWER_NS_MAX: u64 = 10 * S;
/// An account that no plan has.
const NOBODY: AccountId = AccountId(4_000);

/// How an engine is at present.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Sound,
    /// Answers nothing.
    Hangs,
    /// Answers 500.
    Fails,
    /// Answers that it never will.
    Refuses,
    /// Is not there.
    Dead,
}

/// One engine.
#[derive(Debug)]
pub(crate) struct Engine {
    pub(crate) node: usize,
    pub(crate) account: AccountId,
    name: Name,
    scale: u8,
    /// The engine of the neighbour, where it is a node.
    other: Option<usize>,
    pub(crate) mood: Mood,
    mood_until_ns: u64,
    /// It is never mended.
    is_lost: bool,
    /// It has an account for ours.
    is_open: bool,
    /// By key.
    accepted: BTreeMap<String, Quantity>,
    /// By key: requests up to this one are refused.
    refused: BTreeMap<String, u64>,
    /// Accepted and not yet paid, less than its ledger counts. In units of 10^-18.
    leftover: u128,
    /// Of that, what it forgot.
    leftover_lost: u128,
    /// What it has to tell its node, and what it was answered.
    calls: Vec<(Call, Option<Result<Credited, CommandError>>)>,
    /// What came in, in units of 10^-18.
    came_in: u128,
    /// Of that, what the other engine paid.
    came_over: u128,
}

/// What an operator asks for, or an engine says.
#[derive(Debug, Clone)]
pub(crate) enum Settling {
    /// Account, amount, key of the request.
    Manual(Name, Option<u64>, String),
    Retry(SettlementId),
    Cancel(SettlementId),
    /// A channel: account, kind, what we may owe and what they may, key of the request.
    Open(Name, Kind, [u64; 2], String),
    Accept(ChannelId),
    Decline(ChannelId),
    Limits(ChannelId, [u64; 2]),
    /// Whether alone.
    Close(ChannelId, bool),
    /// Which engine, and which of its calls.
    Credit(usize, usize, Call),
}

impl Settling {
    /// What cannot be done at present is refused, which is no mistake here.
    pub(crate) fn apply(
        &self,
        core: &mut Connector,
        now: Now,
        out: &mut Effects,
    ) -> Option<Result<(Credited, Lsn), CommandError>> {
        match self {
            Self::Manual(name, amount, key) => {
                let _ = core.settle_manual(now, name, *amount, key, out);
                None
            }
            Self::Retry(id) => {
                let _ = core.settle_retry(now, *id, out);
                None
            }
            Self::Cancel(id) => {
                let _ = core.settle_cancel(*id, out);
                None
            }
            Self::Open(name, kind, [limit, their_limit], key) => {
                let request = ChannelRequest {
                    account: name.to_string(),
                    kind: *kind,
                    limit: *limit,
                    their_limit: *their_limit,
                    idempotency_key: key.clone(),
                };
                let _ = core.channel_open(now, request, out);
                None
            }
            Self::Accept(id) => {
                let _ = core.channel_accept(now, *id, out);
                None
            }
            Self::Decline(id) => {
                let _ = core.channel_decline(now, *id, "no", out);
                None
            }
            Self::Limits(id, [limit, their_limit]) => {
                let _ = core.channel_limits(now, *id, *limit, *their_limit, out);
                None
            }
            Self::Close(id, alone) => {
                let _ = core.channel_close(now, *id, *alone, out);
                None
            }
            Self::Credit(_, _, call) => {
                Some(core.settle_credit(now, call.account, &call.key, call.quantity.clone(), out))
            }
        }
    }
}

/// Those of a network.
pub(crate) fn engines(network: &Network) -> Vec<Engine> {
    let mut engines = Vec::new();
    for (node, plan) in network.nodes.iter().enumerate() {
        for account in &plan.accounts {
            let Some(scale) = account.terms.as_ref().and_then(|terms| terms.engine_scale) else {
                continue;
            };
            engines.push(Engine {
                node,
                account: plan.id(&account.name),
                name: format!("{}/{}", plan.name, account.name).into(),
                scale,
                other: None,
                mood: Mood::Sound,
                mood_until_ns: 0,
                is_lost: false,
                is_open: false,
                accepted: BTreeMap::new(),
                refused: BTreeMap::new(),
                leftover: 0,
                leftover_lost: 0,
                calls: Vec::new(),
                came_in: 0,
                came_over: 0,
            });
        }
    }
    let names: Vec<_> = engines.iter().map(|engine| engine.name.clone()).collect();
    for engine in &mut engines {
        let (node, account) = engine.name.split_once('/').expect("it was made so");
        let other = format!("{account}/{node}");
        engine.other = names.iter().position(|name| **name == *other);
    }
    engines
}

impl World {
    /// A node asks its engine something. It gets one answer, in this life.
    pub(crate) fn engine_ask(
        &mut self,
        node: usize,
        account: AccountId,
        mut ask: EngineAsk,
    ) -> Checked {
        let mut engines = self.engines.iter();
        let engine = engines.position(|of| (of.node, of.account) == (node, account));
        let engine = engine.ok_or("an engine is asked that no plan has")?;
        self.asks += 1;
        let number = self.asks;
        let life = self.nodes[node].life;
        if let EngineAsk::Settle { id, key, .. } = &mut ask {
            self.witness.engine_told(node, key);
            let is_again = !self.tellings.insert((node, key.clone()));
            if is_again && self.is_mutant(Mutant::KeyRenewed) {
                *key = format!("{key}-{number}");
            }
            note!(self, "{} asks: settle {} {key}", self.name(node), id.0);
        }
        let is_ill = self.weather.engines && !self.is_healed;
        let delay_ns = self.latency_ns();
        let (mut is_heard, mut arrives_ns) = (true, delay_ns);
        if is_ill {
            match self.rng.below(20) {
                // It never arrives, or long after nobody waits for it.
                0 => {
                    self.trouble(Trouble::AskLost);
                    return self.engine_silent(engine, life, &ask);
                }
                1 => {
                    self.trouble(Trouble::AskLate);
                    is_heard = false;
                    arrives_ns = self.rng.between(1_000, 20_000) * MS;
                    self.engine_silent(engine, life, &ask)?;
                }
                // The answer is lost.
                2 => {
                    self.trouble(Trouble::AnswerLost);
                    is_heard = false;
                    self.engine_silent(engine, life, &ask)?;
                }
                _ => {}
            }
        }
        let life = is_heard.then_some(life);
        self.plan_in(
            arrives_ns,
            Event::EngineAsked {
                engine,
                life,
                number,
                ask,
            },
        );
        Ok(())
    }

    /// The node gives the engine up.
    fn engine_silent(&mut self, engine: usize, life: u32, ask: &EngineAsk) -> Checked {
        let delay_ns = self.rng.between(100 * MS, ANSWER_NS_MAX);
        let answer = EngineAnswer::Unknown {
            message: "no answer".to_owned(),
        };
        self.engine_answer(engine, Some(life), ask, answer, delay_ns);
        Ok(())
    }

    fn engine_answer(
        &mut self,
        engine: usize,
        life: Option<u32>,
        ask: &EngineAsk,
        answer: EngineAnswer,
        delay_ns: u64,
    ) {
        let Some(life) = life else { return };
        let (node, account) = (self.engines[engine].node, self.engines[engine].account);
        let input = match ask {
            EngineAsk::Introduce => Input::Introduced { account, answer },
            EngineAsk::Settle { id, .. } => Input::Settled { id: *id, answer },
            // No engine here has anything to say to another.
            EngineAsk::Close | EngineAsk::Message { .. } => return,
        };
        self.plan_in(delay_ns, Event::EngineAnswered { node, life, input });
    }

    /// A request arrives.
    pub(crate) fn engine_asked(
        &mut self,
        engine: usize,
        life: Option<u32>,
        number: u64,
        ask: &EngineAsk,
    ) -> Checked {
        let unknown = |message: &str| EngineAnswer::Unknown {
            message: message.to_owned(),
        };
        let delay_ns = self.latency_ns();
        let mood = self.engines[engine].mood;
        match mood {
            Mood::Sound => {}
            Mood::Hangs => self.trouble(Trouble::EngineHangs),
            Mood::Fails => self.trouble(Trouble::EngineFails),
            Mood::Refuses => self.trouble(Trouble::EngineRefuses),
            Mood::Dead => self.trouble(Trouble::EngineDead),
        }
        let of = &mut self.engines[engine];
        let answer = match (mood, ask) {
            (Mood::Hangs, _) => {
                let late_ns = self.rng.between(1_000 * MS, ANSWER_NS_MAX);
                let answer = unknown("no answer in time");
                self.engine_answer(engine, life, ask, answer, late_ns);
                return Ok(());
            }
            (Mood::Fails, _) => unknown("500"),
            (Mood::Dead, _) => unknown("connection refused"),
            (_, EngineAsk::Introduce) => {
                of.is_open = true;
                EngineAnswer::Accepted
            }
            (_, EngineAsk::Close | EngineAsk::Message { .. }) => return Ok(()),
            (_, EngineAsk::Settle { key, .. }) if !of.is_open => {
                match self.engine_unknown(engine, life, number, key) {
                    Some(answer) => answer,
                    None => {
                        let ask = ask.clone();
                        let event = Event::EngineAsked {
                            engine,
                            life,
                            number,
                            ask,
                        };
                        self.plan_in(delay_ns, event);
                        return Ok(());
                    }
                }
            }
            (_, EngineAsk::Settle { key, .. }) if of.accepted.contains_key(key) => {
                EngineAnswer::Accepted
            }
            (mood, EngineAsk::Settle { key, quantity, .. }) => {
                let refused = of.refused.entry(key.clone()).or_default();
                if mood == Mood::Refuses || number <= *refused {
                    *refused = (*refused).max(number);
                    EngineAnswer::Refused {
                        message: "never".to_owned(),
                    }
                } else {
                    of.refused.remove(key);
                    self.engine_accept(engine, key, quantity)?;
                    EngineAnswer::Accepted
                }
            }
        };
        self.engine_answer(engine, life, ask, answer, delay_ns);
        Ok(())
    }

    /// An engine does not know the account: as the shell does, it is told of it, and then asked again. If
    /// it does not take the account, that is the answer.
    fn engine_unknown(
        &mut self,
        engine: usize,
        life: Option<u32>,
        number: u64,
        key: &str,
    ) -> Option<EngineAnswer> {
        self.trouble(Trouble::AccountUnknown);
        let is_ill = self.weather.engines && !self.is_healed;
        let drawn = if is_ill { self.rng.below(20) } else { 20 };
        let message = "404".to_owned();
        let of = &mut self.engines[engine];
        if of.mood == Mood::Refuses || drawn == 0 {
            let refused = of.refused.entry(key.to_owned()).or_default();
            *refused = (*refused).max(number);
            return Some(EngineAnswer::Refused { message });
        }
        // Nobody hears that it is unknown, or nobody that it is known now.
        if life.is_none() || drawn < 4 {
            return Some(EngineAnswer::Unknown { message });
        }
        of.is_open = true;
        None
    }

    /// An engine begins anew, with its ledger and nothing else.
    pub(crate) fn engine_forgets(&mut self, engine: usize) {
        let of = &mut self.engines[engine];
        let name = of.name.clone();
        of.is_open = false;
        of.leftover_lost += std::mem::take(&mut of.leftover);
        let accepted = std::mem::take(&mut of.accepted).into_keys();
        let refused = std::mem::take(&mut of.refused).into_iter();
        let refused = refused.filter(|(_, number)| *number > 0);
        let keys = accepted.chain(refused.map(|(key, _)| key));
        let keys: Vec<_> = keys.collect();
        let node = of.node;
        let mut again = Vec::new();
        for (call, (_, answer)) in of.calls.iter_mut().enumerate() {
            if answer.take().is_some() {
                again.push(call);
            }
        }
        note!(
            self,
            "the engine of {name} loses its state: {} keys, {} reports",
            keys.len(),
            again.len()
        );
        self.trouble(Trouble::StateLost);
        self.witness.engine_forgets(node, keys);
        for call in again {
            let delay_ns = self.rng.between(1, 2_000) * MS;
            self.trouble(Trouble::ReportAgain);
            self.plan_in(delay_ns, Event::EngineCalls { engine, call });
        }
    }

    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        self.witness.tally.troubles.count(trouble);
    }

    /// It pays: whole units of the ledger now, what is left with the next.
    fn engine_accept(&mut self, engine: usize, key: &str, quantity: &Quantity) -> Checked {
        let of = &mut self.engines[engine];
        of.accepted.insert(key.to_owned(), quantity.clone());
        let (node, account, other) = (of.node, of.account, of.other);
        let amount = fine(quantity);
        let total = of.leftover + amount;
        let unit = unit_of(of.scale);
        of.leftover = total % unit;
        let (paid, scale, name) = (total / unit, of.scale, of.name.clone());
        note!(self, "the engine of {name} pays {paid}/{scale}");
        self.witness.engine_accepts(node, account, key, amount)?;
        if let Some(other) = other.filter(|_| paid > 0) {
            self.engines[other].came_over += paid * unit;
            let delay_ns = self.rng.between(1, 500) * MS;
            self.engine_receives(other, paid, delay_ns);
        } else if self.is_scripted {
            self.heard.push(format!("{name} is paid {paid}/{scale}"));
        }
        Ok(())
    }

    /// Something came in on the ledger of an engine, in its units.
    pub(crate) fn engine_receives(&mut self, engine: usize, amount: u128, delay_ns: u64) {
        let of = &mut self.engines[engine];
        of.came_in += amount * unit_of(of.scale);
        let quantity = Quantity::new(&amount.to_string(), of.scale);
        let quantity = quantity.expect("few digits");
        let key = format!("{}-{}", of.name, of.calls.len());
        let account = of.account;
        let call = Call {
            account,
            key,
            quantity,
        };
        of.calls.push((call, None));
        let call = of.calls.len() - 1;
        self.plan_in(delay_ns, Event::EngineCalls { engine, call });
    }

    /// An engine tells its node, again and again until it is answered, and at times once more.
    pub(crate) fn engine_calls(&mut self, engine: usize, call: usize) -> Checked {
        let of = &self.engines[engine];
        let (node, mood) = (of.node, of.mood);
        let (what, answer) = of.calls[call].clone();
        let is_ill = self.weather.engines && !self.is_healed;
        if answer.is_some() && (!is_ill || !self.rng.percent(30)) {
            return Ok(());
        }
        let again_ns = self.rng.between(500, 3_000) * MS;
        self.plan_in(again_ns, Event::EngineCalls { engine, call });
        if mood == Mood::Dead || is_ill && self.rng.percent(10) {
            return Ok(());
        }
        self.engine_call(node, engine, call, what)?;
        // The same key for something else, an account that is not there, more than can be.
        if is_ill && self.rng.percent(20) {
            let (call, _) = self.engines[engine].calls[call].clone();
            let wrong = self.engine_wrong(call);
            self.engine_call(node, engine, usize::MAX, wrong)?;
        }
        Ok(())
    }

    fn engine_wrong(&mut self, mut call: Call) -> Call {
        let scale = call.quantity.scale();
        let too_much = (1_u128 << 70).to_string();
        let trouble = match self.rng.below(4) {
            0 => {
                call.quantity = call.quantity.plus(&Quantity::of_units(1, scale));
                Trouble::ReportChanged
            }
            1 => {
                call.account = NOBODY;
                Trouble::ReportStray
            }
            2 => {
                call.key += "-more";
                // More than 64 bits of any account.
                call.quantity = Quantity::new(&too_much, 3).expect("few digits");
                Trouble::ReportHuge
            }
            _ => {
                call.key += "-nobody";
                call.account = NOBODY;
                Trouble::ReportStray
            }
        };
        self.trouble(trouble);
        call
    }

    fn engine_call(&mut self, node: usize, engine: usize, index: usize, call: Call) -> Checked {
        let settling = Settling::Credit(engine, index, call);
        self.step(node, vec![Work::Settling(settling)])
    }

    /// The answer of a node to an engine leaves: what it says is on disk.
    pub(crate) fn engine_acknowledged(
        &mut self,
        node: usize,
        engine: usize,
        index: usize,
        answer: Result<Credited, CommandError>,
    ) {
        let Some((call, known)) = self.engines[engine].calls.get_mut(index) else {
            return;
        };
        if answer.is_ok() {
            self.witness.acknowledged(node, &call.key);
        }
        let key = call.key.clone();
        let is_lost = self.weather.engines && !self.is_healed && self.rng.percent(10);
        if !is_lost {
            known.get_or_insert(answer);
        }
        note!(
            self,
            "{} acknowledges {key}, lost: {is_lost}",
            self.name(node)
        );
    }

    /// The mood of an engine turns.
    pub(crate) fn fault_engine(&mut self) {
        if self.engines.is_empty() {
            return;
        }
        let engine = self.rng.index(self.engines.len());
        if self.rng.percent(20) {
            return self.engine_forgets(engine);
        }
        let mood = self.rng.pick(&[
            Mood::Hangs,
            Mood::Fails,
            Mood::Refuses,
            Mood::Dead,
            Mood::Dead,
        ]);
        let length_ns = self.rng.between(50, 4_000) * MS;
        let of = &mut self.engines[engine];
        (of.mood, of.mood_until_ns) = (mood, self.now_ns + length_ns);
        let name = of.name.clone();
        note!(self, "the engine of {name}: {mood:?}");
        self.plan_in(length_ns, Event::EngineMood { engine });
    }

    pub(crate) fn engine_mood(&mut self, engine: usize) {
        let of = &mut self.engines[engine];
        if of.mood_until_ns <= self.now_ns {
            of.mood = Mood::Sound;
        }
    }

    /// All engines are mended, in some runs all but one, which is dead for good: it must hold up
    /// nothing but its own account.
    pub(crate) fn heal_engines(&mut self) {
        for engine in &mut self.engines {
            engine.mood = Mood::Sound;
        }
        if self.weather.engines && !self.engines.is_empty() && self.rng.percent(30) {
            let engine = self.rng.index(self.engines.len());
            let mood = self.rng.pick(&[Mood::Hangs, Mood::Fails, Mood::Dead]);
            let of = &mut self.engines[engine];
            (of.mood, of.mood_until_ns, of.is_lost) = (mood, u64::MAX, true);
            let name = of.name.clone();
            note!(self, "the engine of {name} is {mood:?} for good");
        }
    }

    /// Money that comes in by itself, and what operators want settled.
    pub(crate) fn settle_next(&mut self) -> Checked {
        let trusted = self.trusted();
        if self.is_healed || self.engines.len() + trusted.len() == 0 {
            return Ok(());
        }
        let delay_ns = self.rng.between(50, 1_500) * MS;
        self.plan_in(delay_ns, Event::Settle);
        let engine = self.rng.index(self.engines.len() + trusted.len());
        if let Some(chosen) = engine.checked_sub(self.engines.len()) {
            let (node, account) = trusted[chosen];
            return self.channel_next(node, account);
        }
        let of = &self.engines[engine];
        let (node, account, scale) = (of.node, of.account, of.scale);
        let parked = self.witness.parked(node);
        if !parked.is_empty() && self.rng.percent(60) {
            let id = parked[self.rng.index(parked.len())];
            let settling = match self.rng.percent(50) {
                true => Settling::Retry(id),
                false => Settling::Cancel(id),
            };
            return self.settle_operator(node, settling);
        }
        if self.rng.percent(50) {
            let amount = self.rng.magnitude(u32::from(scale) + 1);
            self.engine_receives(engine, amount.into(), MS);
            return Ok(());
        }
        let name = self.witness.plan(node).account(account).name.clone();
        // A request that is made again, now and then.
        let key = format!("{name} {}", self.rng.below(30));
        let amount = match self.rng.percent(50) {
            true => None,
            false => Some(self.rng.magnitude(u32::from(scale) + 1)),
        };
        self.settle_operator(node, Settling::Manual(name, amount, key))
    }

    pub(crate) fn settle_operator(&mut self, node: usize, settling: Settling) -> Checked {
        note!(self, "{}: {settling:?}", self.name(node));
        self.step(node, vec![Work::Settling(settling)])
    }

    /// What engines refused is tried again.
    pub(crate) fn settle_parked(&mut self, node: usize) -> Checked {
        for id in self.witness.parked(node) {
            self.settle_operator(node, Settling::Retry(id))?;
        }
        Ok(())
    }

    /// Once all is quiet: whatever was paid has come in, once, and is in the books of both.
    pub(crate) fn check_engines(&self) -> Checked {
        for of in self.engines.iter().filter(|of| !of.is_lost) {
            let (paid, credited) = self.witness.check_engine(of.node, of.account)?;
            if credited != of.came_in {
                return Err(format!(
                    "G4: {} came in for {}, the books say {credited}",
                    of.came_in, of.name
                ));
            }
            if let Some((call, _)) = of.calls.iter().find(|(_, answer)| answer.is_none()) {
                return Err(format!("G4: nobody took {call:?}"));
            }
            if let Some(other) = of.other
                && paid != self.engines[other].came_over + of.leftover + of.leftover_lost
            {
                return Err(format!(
                    "G4: {} paid {paid}, {} came over, {} is left and {} forgotten",
                    of.name, self.engines[other].came_over, of.leftover, of.leftover_lost
                ));
            }
        }
        Ok(())
    }

    /// The latest call once more, with some units more.
    pub(crate) fn engine_repeats(&mut self, engine: usize, more: u64) -> Checked {
        let of = &self.engines[engine];
        let (mut call, _) = of.calls.last().ok_or("it has called nobody")?.clone();
        let more = Quantity::of_units(more, call.quantity.scale());
        call.quantity = call.quantity.plus(&more);
        self.engine_call(of.node, engine, usize::MAX, call)
    }

    pub(crate) fn engine_named(&self, name: &str) -> Result<usize, String> {
        let found = self.engines.iter().position(|engine| &*engine.name == name);
        found.ok_or_else(|| format!("there is no engine {name}"))
    }
}
