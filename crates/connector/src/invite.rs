//! Neighbours that come by invitation: an operator offers one account, a stranger takes it.

use rialto_ledger::{
    AccountId, AccountSettings, AccountTerms, HttpLink, INVITES_MAX, IncomingToken, Invite,
    InviteUse, NAME_BYTES_MAX, Record, Relation, RouteExchange, TokenHash, check_name,
};
use rialto_packet::{Address, money::Asset};
use thiserror::Error;

use crate::{
    Connector,
    command::CommandError,
    io::{Effects, Now},
};

/// Accounts of one name that are told apart by a number after it.
const NAMESAKES_MAX: u32 = 99;

/// What the account is called when the node that accepts has no name that could be one.
const NAME_DEFAULT: &str = "peer";

/// What a node says that accepts an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// Hash of the secret in the invitation.
    pub hash: TokenHash,
    /// Hash of all of this: the same node may ask again.
    pub request: TokenHash,
    /// Name of the node that accepts.
    pub name: String,
    /// Its address.
    pub address: Address,
    /// What it takes the account to count.
    pub asset: Asset,
    /// Hash of the token that it will present.
    pub token: TokenHash,
    /// Where it takes packets by ILP over HTTP, if it does.
    pub http: Option<HttpLink>,
}

/// Why an invitation opens nothing. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum InviteError {
    /// There is none with this secret: it was revoked, or never made, or is forgotten.
    #[error("this node has no such invite: it was revoked or has expired, ask for a new one")]
    Unknown,
    /// It is too late.
    #[error("the invite has expired: ask for a new one")]
    Expired,
    /// Another node was quicker, or its account is gone again.
    #[error("the invite was used already: ask for a new one")]
    Used,
    /// It says something else than was offered.
    #[error("the invite offers an account in {offered}, not {asked}: it was changed on its way")]
    Asset {
        /// As it was made.
        offered: Asset,
        /// As it came back.
        asked: Asset,
    },
    /// No account can be made for this node.
    #[error("{}", .0.message)]
    Account(CommandError),
}

impl Connector {
    /// Remembers an invitation. Those that have expired are forgotten meanwhile.
    ///
    /// # Errors
    /// When no account could be made of it, or there are [`INVITES_MAX`] others.
    pub fn invite_put(
        &mut self,
        now: Now,
        invite: Invite,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        let now_ms = now.wall.unix_ms();
        let name = invite.name.clone();
        let name = name.unwrap_or_else(|| self.free_name(NAME_DEFAULT));
        self.check_new_account(&offered(&invite, name))?;
        if invite.expires_at_ms <= now_ms {
            return Err(CommandError::invalid("expires_in_seconds", "is over"));
        }
        let expired: Vec<_> = self
            .ledger
            .invites()
            .filter(|old| old.expires_at_ms <= now_ms)
            .map(|old| old.hash)
            .collect();
        if self.ledger.invites().count() - expired.len() >= INVITES_MAX {
            let message = format!("there are {INVITES_MAX} invites: revoke some");
            return Err(CommandError::busy(message));
        }
        for hash in expired {
            self.record(&Record::InviteDeleted { hash }, out);
        }
        let invite = Box::new(invite);
        self.record(&Record::InvitePut { invite }, out);
        Ok(())
    }

    /// Revokes an invitation; an account that came of it stays.
    ///
    /// # Errors
    /// When there is none.
    pub fn invite_delete(
        &mut self,
        hash: TokenHash,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        if self.ledger.invite(hash).is_none() {
            return Err(CommandError::not_found("invite", ""));
        }
        self.record(&Record::InviteDeleted { hash }, out);
        Ok(())
    }

    /// Makes the account that an invitation offers, or finds the one that the same request made.
    ///
    /// # Errors
    /// See [`InviteError`]; nothing is changed then.
    pub fn invite_accept(
        &mut self,
        now: Now,
        acceptance: Acceptance,
        out: &mut Effects,
    ) -> Result<AccountId, InviteError> {
        let hash = acceptance.hash;
        let invite = self.ledger.invite(hash).ok_or(InviteError::Unknown)?;
        if let Some(used) = &invite.used {
            let is_there = self.ledger.account(used.account).is_some();
            return match used.request == acceptance.request && is_there {
                true => Ok(used.account),
                false => Err(InviteError::Used),
            };
        }
        let at_ms = now.wall.unix_ms();
        if invite.expires_at_ms <= at_ms {
            return Err(InviteError::Expired);
        }
        if invite.asset != acceptance.asset {
            return Err(InviteError::Asset {
                offered: invite.asset.clone(),
                asked: acceptance.asset,
            });
        }
        let name = match &invite.name {
            Some(name) => name.clone(),
            None => self.free_name(&acceptance.name),
        };
        let mut settings = offered(invite, name);
        settings.ilp_address = Some(acceptance.address);
        settings.incoming_tokens = vec![IncomingToken {
            jwt: None,
            pin: false,
            hash: acceptance.token,
            expires_at_ms: None,
        }];
        settings.http = acceptance.http;
        let account = self.ledger.next_account();
        self.check_newcomer(&settings)
            .map_err(InviteError::Account)?;
        let used = InviteUse {
            account,
            request: acceptance.request,
            at_ms,
        };
        let settings = Box::new(settings);
        let accepted = Record::InviteAccepted {
            hash,
            used,
            settings,
        };
        self.record(&accepted, out);
        self.account_changed(account, out);
        Ok(account)
    }

    fn check_newcomer(&self, settings: &AccountSettings) -> Result<(), CommandError> {
        if let Some(address) = &settings.ilp_address {
            self.check_newcomers_address(address)?;
        }
        self.check_new_account(settings)
    }

    /// An address is a route. Whoever names one for itself must not take what is others': ours, what
    /// lies under a neighbour's, or another network.
    ///
    /// # Errors
    /// Says whose it is.
    pub fn check_newcomers_address(&self, address: &Address) -> Result<(), CommandError> {
        let refused = |message: String| Err(CommandError::conflict("ilp_address", message));
        let Some(ours) = self.address() else {
            let message = "this node has no address yet: its parent gives it one";
            return refused(message.to_owned());
        };
        let (theirs, ours) = (address.as_ref(), ours.as_ref());
        if theirs.scheme() != ours.scheme() {
            return refused(format!(
                "{theirs} is in another network than this node, {ours}"
            ));
        }
        if theirs.starts_with(ours.as_str()) || ours.starts_with(theirs.as_str()) {
            return refused(format!("{theirs} overlaps with this node's own, {ours}"));
        }
        let is_anybodys = |prefix| {
            let mut others = self.addressees(prefix);
            others.any(|other| self.ledger.parent().is_none_or(|parent| parent.id != other))
        };
        // What they name, and all that is above it.
        let mut prefixes = std::iter::successors(Some(theirs.as_str()), |prefix| {
            Some(&prefix[..prefix.rfind('.')?])
        });
        if prefixes.any(is_anybodys) {
            return refused(format!("{theirs} is under the address of another account"));
        }
        // A route for a whole network, such as `g`, is a default and takes nothing from anybody.
        let is_taken = |prefix: &str| prefix.contains('.') && theirs.starts_with(prefix);
        let mut routes = self.ledger.routes().keys();
        if routes.any(|prefix| is_taken(prefix.as_str())) {
            return refused(format!("{theirs} is under a static route"));
        }
        Ok(())
    }

    /// The name, or with a number after it, whatever is not taken.
    pub fn free_name(&self, wanted: &str) -> String {
        let usable = wanted
            .bytes()
            .filter(|byte| byte.is_ascii_alphanumeric() || b"_~-".contains(byte));
        // Room for the number.
        let base: String = usable.map(char::from).take(NAME_BYTES_MAX - 4).collect();
        let base = if check_name(&base) {
            base.as_str()
        } else {
            NAME_DEFAULT
        };
        let is_free = |name: &String| self.ledger.account_by_name(name).is_none();
        let numbered = (2..=NAMESAKES_MAX).map(|number| format!("{base}-{number}"));
        let mut names = std::iter::once(base.to_owned()).chain(numbered);
        names.find(is_free).unwrap_or_else(|| base.to_owned())
    }
}

/// The account that is offered, still without anybody behind it.
fn offered(invite: &Invite, name: String) -> AccountSettings {
    AccountSettings {
        name,
        incoming_tokens: Vec::new(),
        terms: AccountTerms {
            limits: invite.limits.clone(),
            routes: routes_of_peer(invite.without_routes),
            ..AccountTerms::new(Relation::Peer, invite.asset.clone())
        }
        .into(),
    }
}

/// How routes are exchanged with a peer that comes by invitation, at both ends.
pub fn routes_of_peer(without: bool) -> RouteExchange {
    match without {
        true => RouteExchange::none(),
        false => RouteExchange::default().or_usual(Relation::Peer),
    }
}
