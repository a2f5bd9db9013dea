//! Nodes that nobody invited: what their operator-to-be neighbours decide about them.

use rialto_ledger::{BLOCKED_MAX, PeeringRequest, PeeringVerdict, Record, TokenHash};

use crate::{
    Connector,
    command::CommandError,
    io::{Effects, Now},
};

/// How many requests to peer may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeeringBounds {
    /// In all.
    pub count_max: usize,
    /// From one IPv4 address or IPv6 network.
    pub per_source_max: usize,
}

/// What has become of a request to peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PeeringStand {
    /// It waits for the operator, since just now or since before.
    Waits {
        /// It came for the first time.
        is_new: bool,
    },
    /// The operator wants it.
    Approved(Box<PeeringRequest>),
}

impl Connector {
    /// A token that opens nothing is not told of any more.
    ///
    /// # Errors
    /// When it opens an account, or [`BLOCKED_MAX`] others are blocked.
    pub fn caller_block(&mut self, hash: TokenHash, out: &mut Effects) -> Result<(), CommandError> {
        if let Some(account) = self.ledger.account_by_token(hash) {
            let name = &account.settings.name;
            let message = format!("the token opens account '{name}': remove it there");
            return Err(CommandError::conflict("fingerprint", message));
        }
        if self.ledger.blocked_callers().count() >= BLOCKED_MAX {
            let message = format!("{BLOCKED_MAX} tokens are blocked: unblock some");
            return Err(CommandError::busy(message));
        }
        self.record(&Record::CallerBlocked { hash }, out);
        Ok(())
    }

    /// It is told of again.
    ///
    /// # Errors
    /// When it is not blocked.
    pub fn caller_unblock(
        &mut self,
        hash: TokenHash,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        if !self.ledger.blocked_callers().any(|blocked| blocked == hash) {
            return Err(CommandError::not_found("blocked caller", ""));
        }
        self.record(&Record::CallerUnblocked { hash }, out);
        Ok(())
    }

    /// A stranger asks to peer. Nothing is made of it: it waits for the operator. Those whose time is
    /// over are forgotten meanwhile.
    ///
    /// # Errors
    /// When its address or URL is somebody's already, or too many wait.
    pub fn peering_ask(
        &mut self,
        now: Now,
        request: PeeringRequest,
        bounds: PeeringBounds,
        out: &mut Effects,
    ) -> Result<PeeringStand, CommandError> {
        self.check_newcomers_address(&request.ilp_address)?;
        let accounts = self.ledger.accounts();
        let is_there = { accounts }.any(|account| {
            let link = account.settings.http.as_ref();
            link.is_some_and(|link| is_same_url(&link.url, &request.url))
        });
        if is_there {
            let message = "there is a peer at this URL already";
            return Err(CommandError::conflict("url", message));
        }
        self.forget_peering_requests(now, out);
        if let Some(known) = self.ledger.peering_request(request.hash) {
            return Ok(match &known.verdict {
                Some(PeeringVerdict::Approved { .. }) => {
                    PeeringStand::Approved(known.clone().into())
                }
                // Whoever was denied hears the same as those who wait.
                Some(PeeringVerdict::Denied) | None => PeeringStand::Waits { is_new: false },
            });
        }
        let requests = || self.ledger.peering_requests();
        let of_source = requests().filter(|other| other.from == request.from);
        if of_source.count() >= bounds.per_source_max || requests().count() >= bounds.count_max {
            let message = "too many requests to peer wait for the operator: try again later";
            return Err(CommandError::busy(message));
        }
        let request = Box::new(request);
        self.record(&Record::PeeringRequestPut { request }, out);
        Ok(PeeringStand::Waits { is_new: true })
    }

    /// What the operator says to a request; an approved one is good until `until_ms`.
    ///
    /// # Errors
    /// When there is none.
    pub fn peering_decide(
        &mut self,
        now: Now,
        hash: TokenHash,
        verdict: PeeringVerdict,
        until_ms: Option<i64>,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        self.forget_peering_requests(now, out);
        let request = self.ledger.peering_request(hash);
        let request = request.ok_or_else(|| CommandError::not_found("request", ""))?;
        let request = Box::new(PeeringRequest {
            verdict: Some(verdict),
            expires_at_ms: until_ms.unwrap_or(request.expires_at_ms),
            ..request.clone()
        });
        self.record(&Record::PeeringRequestPut { request }, out);
        Ok(())
    }

    /// The account of a request was made.
    pub fn peering_made(&mut self, hash: TokenHash, out: &mut Effects) {
        self.record(&Record::PeeringRequestDeleted { hash }, out);
    }

    fn forget_peering_requests(&mut self, now: Now, out: &mut Effects) {
        let now_ms = now.wall.unix_ms();
        let requests = self.ledger.peering_requests();
        let over: Vec<_> = requests
            .filter(|request| request.expires_at_ms <= now_ms)
            .map(|request| request.hash)
            .collect();
        for hash in over {
            self.record(&Record::PeeringRequestDeleted { hash }, out);
        }
    }
}

/// But for a slash at the end and the case of letters, which hosts do not tell apart.
fn is_same_url(one: &str, other: &str) -> bool {
    one.trim_end_matches('/')
        .eq_ignore_ascii_case(other.trim_end_matches('/'))
}
