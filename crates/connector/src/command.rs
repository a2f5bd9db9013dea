//! What operators change. Each call checks everything first, then makes one record; the caller waits
//! until that record is on disk before it says so.

use rialto_channel::Kind;
use rialto_ledger::{
    AccountId, AccountSettings, IncomingToken, NAME_BYTES_MAX, Payment, PaymentEnd, PaymentId,
    PaymentProgress, Rate, Record, Relation, RouteShare, SettlementTerms, TOKENS_MAX, check_name,
};
use rialto_packet::{
    Address, ErrorCode, Prefix,
    money::{ASSET_CODE_BYTES_MAX, Ratio},
};
use rialto_stream::sender::{Path, SenderConfig, Stop};

use crate::{
    Connector,
    io::{Action, Effects, Event, LinkId, Now},
    market::Moved,
    quotes::Quotes,
    refusal::Row,
};

/// Most next hops of one static route.
const ROUTE_HOPS_MAX: usize = 16;

/// How long an ended payment is kept at least, so that its key means the same payment. Milliseconds.
pub const PAYMENT_KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// What kind of mistake a command is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommandErrorKind {
    /// The thing does not exist.
    NotFound,
    /// It contradicts what exists.
    Conflict,
    /// A value is not possible.
    Invalid,
    /// The caller may not do it.
    Forbidden,
    /// A bound is reached; it may work later.
    Busy,
}

/// A command that changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandError {
    /// What kind of mistake.
    pub kind: CommandErrorKind,
    /// The field to change, where one is to blame.
    pub field: &'static str,
    /// What is wrong and how to mend it.
    pub message: String,
}

impl CommandError {
    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        let message = format!("there is no {what} '{name}'");
        Self {
            kind: CommandErrorKind::NotFound,
            field: "",
            message,
        }
    }

    pub(crate) fn conflict(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: CommandErrorKind::Conflict,
            field,
            message: message.into(),
        }
    }

    pub(crate) fn invalid(field: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind: CommandErrorKind::Invalid,
            field,
            message: message.into(),
        }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            kind: CommandErrorKind::Forbidden,
            field: "",
            message: message.into(),
        }
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self {
            kind: CommandErrorKind::Busy,
            field: "",
            message: message.into(),
        }
    }
}

/// What came of a request with an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Made<T> {
    /// It is a new one.
    New(T),
    /// The key was used before for the same request: this is what was made then.
    Existing(T),
}

/// What a quote found out.
#[derive(Debug, Clone)]
pub struct QuoteOutcome {
    /// What is known of the path; `None` when it could not be found out.
    pub path: Option<Path>,
    /// Why not.
    pub stopped: Option<Stop>,
}

/// How a ping went.
#[derive(Debug, Clone)]
pub enum PingOutcome {
    /// The node answered.
    Reached {
        /// There and back.
        round_trip_ns: u64,
    },
    /// Somebody on the way refused.
    Rejected {
        /// ILP code.
        code: ErrorCode,
        /// For people.
        message: String,
        /// Who refused, if it said so.
        triggered_by: Option<Address>,
    },
}

/// A payment as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentRequest {
    /// The local account that pays.
    pub account: String,
    /// The caller's key.
    pub idempotency_key: String,
    /// All that the caller asked for, in one canonical text.
    pub request: String,
    /// Payment pointer or URL that is paid.
    pub receiver: String,
}

impl Connector {
    /// Makes an account.
    pub fn account_create(
        &mut self,
        settings: AccountSettings,
        out: &mut Effects,
    ) -> Result<AccountId, CommandError> {
        self.check_new_account(&settings)?;
        let id = self.ledger.next_account();
        self.put_account(id, settings, out);
        Ok(id)
    }

    /// Whether [`Self::account_create`] would make it.
    pub fn check_new_account(&self, settings: &AccountSettings) -> Result<(), CommandError> {
        if self.ledger.account_by_name(&settings.name).is_some() {
            let message = format!("there is an account '{}' already", settings.name);
            return Err(CommandError::conflict("name", message));
        }
        self.check_account(self.ledger.next_account(), settings)
    }

    /// Replaces all settings of an account but its name and asset. Without one of its tokens, or at
    /// another address, its BTP sessions end.
    pub fn account_update(
        &mut self,
        settings: AccountSettings,
        out: &mut Effects,
    ) -> Result<AccountId, CommandError> {
        let account = self
            .ledger
            .account_by_name(&settings.name)
            .ok_or_else(|| CommandError::not_found("account", &settings.name))?;
        if account.settings.asset != settings.asset {
            let message = "the asset of an account cannot change: make another account";
            return Err(CommandError::conflict("asset_code", message));
        }
        let id = account.id;
        let (old, new) = (&account.settings.settlement, &settings.settlement);
        if old.engine_url != new.engine_url
            && let Some(unended) = self.ledger.settlement_of(id)
        {
            // Whether the old one has it is not known: told to another, it could be paid twice.
            let message = format!("settlement {} is still under way", unended.id.0);
            return Err(CommandError::conflict("settlement.engine_url", message));
        }
        let mut channels = self.ledger.channels_of(id);
        if new.engine_channels && channels.any(|known| !known.channel.is_quiet()) {
            let message = "a channel of our own has not ended: close it first";
            return Err(CommandError::conflict(
                "settlement.engine_channels",
                message,
            ));
        }
        drop(channels);
        if old.accounting_url != new.accounting_url
            && (account.balance() != 0 || self.ledger.report_of(id).is_some())
        {
            // Another would be told what is not its own.
            let message = "cannot change while something is still to be paid or told";
            return Err(CommandError::conflict("settlement.accounting_url", message));
        }
        let engine_changed = old.engine_url != new.engine_url;
        let old_engine = old.engine_url.clone();
        let kept = |old: &IncomingToken| {
            settings
                .incoming_tokens
                .iter()
                .any(|new| new.hash == old.hash)
        };
        let is_revoked = !account.settings.incoming_tokens.iter().all(kept);
        let is_readdressed = account.settings.ilp_address != settings.ilp_address;
        self.check_account(id, &settings)?;
        self.put_account(id, settings, out);
        if engine_changed {
            if let Some(engine_url) = old_engine {
                self.settle_close(id, engine_url, out);
            }
            if self.link_of(id).is_some() {
                self.settle_introduce(id, out);
            }
        }
        if is_revoked || is_readdressed {
            // Whoever is there may have come in with the token, or asks for its address again when it
            // has connected again. A token that only gets an end stays good.
            for link in self.sessions.get(&id).into_iter().flatten().copied() {
                out.now(Action::Disconnect { link });
            }
        }
        Ok(id)
    }

    /// Deletes an account and its routes. It must have no balance and nothing in flight.
    pub fn account_delete(&mut self, name: &str, out: &mut Effects) -> Result<(), CommandError> {
        let account = self
            .ledger
            .account_by_name(name)
            .ok_or_else(|| CommandError::not_found("account", name))?;
        let id = account.id;
        if account.balance() != 0 {
            let balance = account.settings.asset.decimal(account.balance());
            let code = account.settings.asset.code();
            let message = format!("the balance is {balance} {code}: settle it first");
            return Err(CommandError::conflict("balance", message));
        }
        let mut payments = self.ledger.payments().values();
        let is_paying = payments.any(|payment| payment.account == id && payment.end.is_none());
        if !account.is_idle() || is_paying || self.local.is_sending(id) {
            let message = "packets are in flight: pause the account and try again";
            return Err(CommandError::conflict("in_flight", message));
        }
        let unended = self.ledger.settlement_of(id);
        if let Some(unended) = unended.or_else(|| self.ledger.report_of(id)) {
            let message = format!("settlement {} is still under way", unended.id.0);
            return Err(CommandError::conflict("settlement", message));
        }
        let mut proposals = self.ledger.proposals();
        if let Some(proposal) = proposals.find(|made| made.account == id) {
            let message = format!(
                "settlement {} by hand waits to be approved: approve or decline it first",
                proposal.id.0
            );
            return Err(CommandError::conflict("settlement", message));
        }
        drop(proposals);
        let mut channels = self.ledger.channels_of(id).map(|known| &known.channel);
        let unended = channels.rfind(|channel| !channel.is_quiet());
        let unended = unended.map(|channel| (channel.id, channel.state_word()));
        drop(channels);
        if let Some((id, word)) = unended {
            let message = format!("channel {id} is {word}: close it first");
            return Err(CommandError::conflict("channel", message));
        }
        if let Some(engine_url) = account.settings.settlement.engine_url.clone() {
            self.settle_close(id, engine_url, out);
        }
        for link in self.sessions.remove(&id).unwrap_or_default() {
            out.now(Action::Disconnect { link });
        }
        let routes = self.ledger.routes().iter();
        let led_here = routes.filter(|(_, route)| route.hops().iter().any(|hop| hop.account == id));
        let led_here: Vec<_> = led_here.map(|(prefix, _)| prefix.clone()).collect();
        self.record(&Record::AccountDeleted { id }, out);
        for prefix in led_here {
            self.derive_static(&prefix);
        }
        self.local.forget(id);
        self.stats.forget(id);
        self.paces.forget(id);
        self.channel_account_deleted(id);
        self.pending.forget_link(LinkId::Http(id));
        self.account_changed(id, out);
        Ok(())
    }

    /// Sets a static route: to one account, or to several, each with its share of the destinations.
    pub fn route_put(
        &mut self,
        prefix: Prefix,
        hops: &[(String, u16)],
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let mut shares: Vec<RouteShare> = Vec::new();
        for (name, weight) in hops {
            let account = self.ledger.account_by_name(name).ok_or_else(|| {
                CommandError::invalid("account", format!("there is no account '{name}'"))
            })?;
            let share = RouteShare {
                account: account.id,
                weight: *weight,
            };
            if shares.iter().any(|other| other.account == share.account) {
                let message = format!("'{name}' is named twice");
                return Err(CommandError::invalid("account", message));
            }
            shares.push(share);
        }
        let account = match shares[..] {
            [] => {
                return Err(CommandError::invalid(
                    "account",
                    "name at least one account",
                ));
            }
            [only] => {
                shares.clear();
                only.account
            }
            [first, ..] if shares.len() <= ROUTE_HOPS_MAX => first.account,
            _ => {
                let message = format!("at most {ROUTE_HOPS_MAX} accounts can share a route");
                return Err(CommandError::invalid("account", message));
            }
        };
        if prefix.as_str() == "peer" || prefix.as_str().starts_with("peer.") {
            let message = "packets to 'peer' are answered by the node itself and never forwarded";
            return Err(CommandError::invalid("prefix", message));
        }
        let put = Record::RoutePut {
            prefix: prefix.clone(),
            account,
            shares,
        };
        self.record(&put, out);
        self.derive_static(&prefix);
        Ok(())
    }

    /// Removes a static route.
    pub fn route_delete(&mut self, prefix: &Prefix, out: &mut Effects) -> Result<(), CommandError> {
        if !self.ledger.routes().contains_key(prefix) {
            return Err(CommandError::not_found("static route", prefix.as_str()));
        }
        self.record(
            &Record::RouteDeleted {
                prefix: prefix.clone(),
            },
            out,
        );
        self.derive_static(prefix);
        Ok(())
    }

    /// Sets the rate from one asset code to another.
    pub fn rate_put(
        &mut self,
        from: &str,
        to: &str,
        rate: Rate,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        for (field, code) in [("from", from), ("to", to)] {
            if code.is_empty() || code.len() > ASSET_CODE_BYTES_MAX {
                return Err(CommandError::invalid(
                    field,
                    "an asset code has 1 to 255 bytes",
                ));
            }
        }
        if from == to {
            return Err(CommandError::invalid(
                "to",
                "an asset is worth itself: set a spread instead",
            ));
        }
        let ratio: Ratio = rate
            .rate
            .parse()
            .map_err(|error| CommandError::invalid("rate", format!("'{}' {error}", rate.rate)))?;
        if ratio.is_zero() {
            return Err(CommandError::invalid("rate", "must be greater than zero"));
        }
        check_spread(rate.spread.as_deref())?;
        let (from, to) = (from.to_owned(), to.to_owned());
        self.record(&Record::RatePut { from, to, rate }, out);
        self.rates.clear();
        Ok(())
    }

    /// Removes a rate.
    pub fn rate_delete(
        &mut self,
        from: &str,
        to: &str,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let (from, to) = (from.to_owned(), to.to_owned());
        if !self
            .ledger
            .rates()
            .contains_key(&(from.clone(), to.clone()))
        {
            return Err(CommandError::not_found("rate", &format!("{from}/{to}")));
        }
        self.record(&Record::RateDeleted { from, to }, out);
        self.rates.clear();
        Ok(())
    }

    /// Takes prices from outside, and says which moved too far to be taken.
    pub fn quotes_take(&mut self, quotes: Quotes) -> Vec<Moved> {
        let moved = self.market.take(quotes);
        self.rates.clear();
        moved
    }

    /// The source of prices does not work. What it said before holds until it is too old.
    pub fn quotes_failed(&mut self, now: Now, message: String) {
        self.market.failed(now.wall, message);
    }

    /// Takes a price that moved too far: an operator says that it is right.
    pub fn price_confirm(&mut self, code: &str) -> Result<(), CommandError> {
        if !self.market.confirm(code) {
            return Err(CommandError::not_found("price that waits for", code));
        }
        self.rates.clear();
        Ok(())
    }

    /// Writes down that a payment was asked for, before anything of it happens. After a new one comes
    /// [`Self::payment_start`] or [`Self::payment_fail`].
    pub fn payment_create(
        &mut self,
        now: Now,
        request: PaymentRequest,
        out: &mut Effects,
    ) -> Result<Made<PaymentId>, CommandError> {
        if let Some(payment) = self.ledger.payment_by_key(&request.idempotency_key) {
            if payment.request != request.request {
                let message = "this key was used for another request";
                return Err(CommandError::invalid("Idempotency-Key", message));
            }
            return Ok(Made::Existing(payment.id));
        }
        let (account, account_name) = (self.local_account(&request.account)?, request.account);
        self.check_senders()?;
        self.check_payments(now)?;
        let id = self.ledger.next_payment();
        let payment = Box::new(Payment {
            id,
            account,
            account_name,
            idempotency_key: request.idempotency_key,
            request: request.request,
            receiver: request.receiver,
            created_at_ms: now.wall.unix_ms(),
            destination_asset: None,
            progress: PaymentProgress {
                payment: id,
                sent: 0,
                delivered: 0,
                fulfilled: 0,
                rejected: 0,
            },
            end: None,
        });
        self.record(&Record::PaymentPut { payment }, out);
        Ok(Made::New(id))
    }

    /// Starts a payment that was created, once its receiver is resolved. Without a route or a rate it
    /// ends at once.
    pub fn payment_start(
        &mut self,
        now: Now,
        id: PaymentId,
        config: SenderConfig,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let account = self.waiting_payment(id)?.account;
        if let Err(error) = self.check_path(now, account, &config.destination) {
            return self.payment_fail(id, "no_path", &error.message, out);
        }
        self.start_payment(now, id, account, config, out);
        Ok(())
    }

    /// Ends a payment that was created and could not be started.
    pub fn payment_fail(
        &mut self,
        id: PaymentId,
        code: &str,
        message: &str,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let mut payment = Box::new(self.waiting_payment(id)?.clone());
        let (code, message) = (code.to_owned(), message.to_owned());
        payment.end = Some(PaymentEnd::Failed { code, message });
        self.record(&Record::PaymentPut { payment }, out);
        out.now(Action::Report(Event::PaymentEnded { id }));
        Ok(())
    }

    /// Asks a running payment to stop where it is; what is in flight is waited for.
    pub fn payment_stop(
        &mut self,
        now: Now,
        id: PaymentId,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        if self.stop_payment(now, id, out) {
            return Ok(());
        }
        Err(CommandError::conflict("id", "the payment does not run"))
    }

    /// Begins to find out what a payment would deliver. [`Event::QuoteDone`] tells, by the number.
    pub fn quote(
        &mut self,
        now: Now,
        account: &str,
        config: SenderConfig,
        out: &mut Effects,
    ) -> Result<u64, CommandError> {
        let account = self.local_account(account)?;
        self.check_path(now, account, &config.destination)?;
        self.start_quote(now, account, config, out)
    }

    /// Sends a ping from a local account. [`Event::PingDone`] tells, by the number.
    pub fn ping(
        &mut self,
        now: Now,
        account: &str,
        destination: &Address,
        amount: u64,
        out: &mut Effects,
    ) -> Result<u64, CommandError> {
        let account = self.local_account(account)?;
        self.start_ping(now, account, destination, amount, out)
    }

    fn put_account(&mut self, id: AccountId, settings: AccountSettings, out: &mut Effects) {
        if settings.relation == Relation::Parent {
            self.parent.ask_again();
        }
        self.record(
            &Record::AccountPut {
                id,
                settings: Box::new(settings),
            },
            out,
        );
        self.account_changed(id, out);
    }

    pub(crate) fn account_changed(&mut self, id: AccountId, out: &mut Effects) {
        self.derive_account(id);
        self.rates.clear();
        self.channel_account_changed(id);
        out.now(Action::Report(Event::AccountChanged { account: id }));
    }

    fn local_account(&self, name: &str) -> Result<AccountId, CommandError> {
        let account = self.ledger.account_by_name(name).ok_or_else(|| {
            CommandError::invalid("account", format!("there is no account '{name}'"))
        })?;
        if self.link_of(account.id) != Some(LinkId::Local) {
            let message = format!("'{name}' is not a local account: its own node pays for it");
            return Err(CommandError::invalid("account", message));
        }
        Ok(account.id)
    }

    /// What our own books know to be impossible is said at once: no route, or no rate.
    fn check_path(
        &mut self,
        now: Now,
        account: AccountId,
        destination: &Address,
    ) -> Result<(), CommandError> {
        let field = "receiver";
        if self.address().is_none() {
            let message = "this node has no address yet: it waits for its parent's answer";
            return Err(CommandError::busy(message));
        }
        match self.choose_hop(now.mono_ns, destination.as_ref()) {
            None => {
                let message = format!("no route leads to {destination}: set one");
                Err(CommandError::invalid(field, message))
            }
            Some(AccountId::NODE) => {
                let message = format!("{destination} is this node itself, and no account of it");
                Err(CommandError::invalid(field, message))
            }
            Some(payee) => {
                let found =
                    self.rates
                        .conversion(now.wall, &self.ledger, &self.market, account, payee);
                let Err(reason) = found.map(|_| ()) else {
                    return Ok(());
                };
                let code = |id| {
                    self.ledger
                        .account(id)
                        .map_or("", |a| a.settings.asset.code())
                };
                let (from, to) = (code(account), code(payee));
                let Row { word, message, .. } = reason.row();
                let message = format!("{word}: {message} from {from} to {to}: set one");
                Err(CommandError::invalid(field, message))
            }
        }
    }

    fn waiting_payment(&self, id: PaymentId) -> Result<&Payment, CommandError> {
        let payment = self.ledger.payments().get(&id);
        let payment =
            payment.ok_or_else(|| CommandError::not_found("payment", &id.0.to_string()))?;
        if payment.end.is_some() {
            return Err(CommandError::conflict("id", "the payment has ended"));
        }
        if self.local.is_running(id) {
            return Err(CommandError::conflict("id", "the payment runs already"));
        }
        Ok(payment)
    }

    /// The table of payments has room, or its oldest ended payment may be forgotten.
    fn check_payments(&self, now: Now) -> Result<(), CommandError> {
        let payments = self.ledger.payments();
        if payments.len() < rialto_ledger::PAYMENTS_MAX {
            return Ok(());
        }
        let oldest = payments.values().find(|payment| payment.end.is_some());
        let age_ms = oldest.map_or(0, |payment| now.wall.unix_ms() - payment.created_at_ms);
        if age_ms < PAYMENT_KEPT_MS {
            return Err(CommandError::busy("too many payments within seven days"));
        }
        Ok(())
    }

    pub(crate) fn check_account(
        &self,
        id: AccountId,
        settings: &AccountSettings,
    ) -> Result<(), CommandError> {
        if !check_name(&settings.name) {
            let message =
                format!("must be 1 to {NAME_BYTES_MAX} of A-Z, a-z, 0-9, '_', '~' and '-'");
            return Err(CommandError::invalid("name", message));
        }
        if settings
            .asset
            .code()
            .chars()
            .any(|c| c.is_control() || c.is_whitespace())
        {
            return Err(CommandError::invalid(
                "asset_code",
                "must not contain blanks or control characters",
            ));
        }
        check_spread(settings.spread.as_deref())?;
        check_limits(settings)?;
        check_settlement(settings)?;
        self.check_address(id, settings)?;
        self.check_tokens(id, settings)?;

        if settings.relation == Relation::Parent
            && self.ledger.parent().is_some_and(|other| other.id != id)
        {
            return Err(CommandError::conflict(
                "relation",
                "there is a parent already; a node has one",
            ));
        }
        if settings.relation == Relation::Local
            && (settings.http.is_some() || settings.btp.is_some())
        {
            let field = if settings.http.is_some() {
                "http"
            } else {
                "btp"
            };
            return Err(CommandError::invalid(
                field,
                "a local account has no node of its own to connect to",
            ));
        }
        Ok(())
    }

    fn check_address(&self, id: AccountId, settings: &AccountSettings) -> Result<(), CommandError> {
        let address = match (&settings.ilp_address, settings.relation) {
            (Some(address), _) => address.clone(),
            (None, Relation::Child | Relation::Local) => {
                let Some(own) = self.address() else {
                    return Ok(());
                };
                own.child(&settings.name).map_err(|error| {
                    CommandError::invalid("name", format!("after our own address: {error}"))
                })?
            }
            (None, Relation::Parent | Relation::Peer) => return Ok(()),
        };
        if address.as_ref().starts_with("peer") {
            return Err(CommandError::invalid(
                "ilp_address",
                "must not begin with 'peer'",
            ));
        }
        if Some(&address) == self.address() {
            return Err(CommandError::conflict(
                "ilp_address",
                "is the address of this node",
            ));
        }
        if self.addressees(address.as_str()).any(|other| other != id) {
            return Err(CommandError::conflict(
                "ilp_address",
                "is the address of another account",
            ));
        }
        Ok(())
    }

    fn check_tokens(&self, id: AccountId, settings: &AccountSettings) -> Result<(), CommandError> {
        let tokens = &settings.incoming_tokens;
        if tokens.len() > TOKENS_MAX {
            let message = format!("at most {TOKENS_MAX} tokens can be valid at the same time");
            return Err(CommandError::invalid("incoming_token", message));
        }
        for token in tokens {
            let other = self.ledger.account_by_token(token.hash);
            if other.is_some_and(|other| other.id != id) {
                let message = "another account has this token; each needs its own";
                return Err(CommandError::conflict("incoming_token", message));
            }
        }
        Ok(())
    }
}

fn check_spread(spread: Option<&str>) -> Result<(), CommandError> {
    let Some(text) = spread else { return Ok(()) };
    let checked = text
        .parse::<Ratio>()
        .and_then(|spread| Ratio::one().less(&spread));
    match checked {
        Ok(_) => Ok(()),
        Err(error) => Err(CommandError::invalid("spread", format!("'{text}' {error}"))),
    }
}

fn check_limits(settings: &AccountSettings) -> Result<(), CommandError> {
    let limits = &settings.limits;
    if limits.balance_min > 0 {
        let message = "must be 0 or below: it is minus the credit that you give";
        return Err(CommandError::invalid("limits.balance_min", message));
    }
    if limits.balance_min < -i128::from(u64::MAX) {
        return Err(CommandError::invalid(
            "limits.balance_min",
            "must not be below -18446744073709551615",
        ));
    }
    for (field, limit) in [
        ("limits.packet_amount_max", limits.packet_amount_max),
        ("limits.amount_per_minute", limits.amount_per_minute),
        ("limits.in_flight_amount_max", limits.in_flight_amount_max),
        ("limits.unsynced_amount_max", limits.unsynced_amount_max),
        (
            "limits.packets_per_minute",
            limits.packets_per_minute.map(u64::from),
        ),
        (
            "limits.packets_out_per_second",
            limits.packets_out_per_second.map(u64::from),
        ),
        (
            "limits.in_flight_count_max",
            limits.in_flight_count_max.map(u64::from),
        ),
    ] {
        if limit == Some(0) {
            return Err(CommandError::invalid(
                field,
                "0 would let nothing pass: pause the account instead",
            ));
        }
    }
    let Some(packet) = limits.packet_amount_max else {
        return Ok(());
    };
    for (limit, name) in [
        (limits.amount_per_minute, "limits.amount_per_minute"),
        (limits.in_flight_amount_max, "limits.in_flight_amount_max"),
        (limits.unsynced_amount_max, "limits.unsynced_amount_max"),
    ] {
        if limit.is_some_and(|limit| limit < packet) {
            let message = format!("is above {name}, so the largest packet could never pass");
            return Err(CommandError::invalid("limits.packet_amount_max", message));
        }
    }
    Ok(())
}

fn check_settlement(settings: &AccountSettings) -> Result<(), CommandError> {
    let terms = &settings.settlement;
    if let Some(url) = &terms.engine_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        let message = "must begin with http:// or https://";
        return Err(CommandError::invalid("settlement.engine_url", message));
    }
    if terms
        .threshold
        .is_some_and(|threshold| threshold <= terms.settle_to)
    {
        let message = "must be above settlement.settle_to, or there would be nothing to settle";
        return Err(CommandError::invalid("settlement.threshold", message));
    }
    if terms.settle_to < settings.limits.balance_min {
        let message = "must not be below limits.balance_min: it pays ahead at most that far";
        return Err(CommandError::invalid("settlement.settle_to", message));
    }
    if terms.every_s == Some(0) {
        let message = "must be at least 1 second";
        return Err(CommandError::invalid("settlement.every_s", message));
    }
    if let Some(channel) = &terms.channel {
        let kind = channel.kind;
        if channel.propose && channel.limit == 0 && channel.their_limit == 0 {
            let message = "a channel on which neither side may owe anything can carry no payment";
            return Err(CommandError::invalid("settlement.channel.limit", message));
        }
        if kind == Kind::AsymmetricalTrustline && channel.limit > 0 && channel.their_limit > 0 {
            let message = "on an asymmetrical trustline only the side that keeps the ledger owes: one \
                           of limit and their_limit must be 0";
            return Err(CommandError::invalid("settlement.channel.limit", message));
        }
    }
    if terms.engine_channels && (terms.engine_url.is_none() || terms.channel.is_some()) {
        let message = "channels of the engine need settlement.engine_url, and no settlement.channel of our own";
        return Err(CommandError::invalid("settlement.engine_channels", message));
    }
    check_accounting(settings)?;
    let is_local = settings.relation == Relation::Local;
    if is_local && terms.channel.is_some() {
        let message = "a local account has no node of its own to settle with";
        return Err(CommandError::invalid("settlement.channel", message));
    }
    if is_local && terms.engine_url.is_some() {
        let message = "a local account has no node of its own to settle with";
        return Err(CommandError::invalid("settlement.engine_url", message));
    }
    Ok(())
}

/// An account of the accounting system whose engine we are carries messages and settlements alone.
fn check_accounting(settings: &AccountSettings) -> Result<(), CommandError> {
    let terms = &settings.settlement;
    let Some(url) = &terms.accounting_url else {
        return Ok(());
    };
    let wrong = |message: &str| {
        let field = "settlement.accounting_url";
        Err(CommandError::invalid(field, message))
    };
    if !(url.starts_with("http://") || url.starts_with("https://")) {
        return wrong("must begin with http:// or https://");
    }
    let by_itself = SettlementTerms {
        accounting_url: terms.accounting_url.clone(),
        channel: terms.channel,
        ..SettlementTerms::default()
    };
    if *terms != by_itself {
        return wrong(
            "the accounting system says what is settled: only channel can stand beside it",
        );
    }
    let has_link = settings.http.is_some() || settings.btp.is_some();
    if settings.relation != Relation::Peer || has_link || !settings.incoming_tokens.is_empty() {
        return wrong(
            "such an account is a peer's, without links and tokens: it carries no packets",
        );
    }
    Ok(())
}
