//! Settlements by hand: an operator writes down what was paid outside of the node.
//!
//! ```text
//!   recorded ── one operator is enough ──────────────▶ Settled
//!       │                                                 ▲
//!       └── needs a second one ──▶ Proposed ── approved ──┘
//!                                     └─────── declined ──▶ Declined
//! ```
//!
//! Each arrow is one record; the one that ends in `Settled` moves the balance. A reference names the
//! transfer, so that it is written down once however many operators do.

use rialto_ledger::{
    Account, Approval, Direction, HAND_SETTLEMENTS_MAX, HandSettlement, HandState, PROPOSALS_MAX,
    REFERENCE_BYTES_MAX, Record, SettlementId,
};

use crate::{
    Connector,
    command::{CommandError, Made},
    io::{Effects, Now},
    settle::check_available,
};

/// How long a settlement by hand is kept at least, so that its key means the same. Milliseconds.
pub const HAND_SETTLEMENT_KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// What was paid outside, as an operator says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandRequest {
    /// Name of the account.
    pub account: String,
    /// Who paid.
    pub direction: Direction,
    /// In units of the account's asset.
    pub amount: u64,
    /// Names the transfer.
    pub reference: String,
    /// Whose token asks.
    pub by: String,
    /// The caller's key.
    pub idempotency_key: String,
}

impl HandRequest {
    fn is_of(&self, made: &HandSettlement) -> bool {
        (self.direction, self.amount) == (made.direction, made.amount)
    }
}

impl Connector {
    /// Writes down a settlement: at once, or for a second operator to approve. One with the same key, or
    /// with the same reference, direction and amount, is the same settlement.
    ///
    /// # Errors
    /// There is no such account; the amount is zero, or above what the limits of the account leave; the
    /// reference is empty, too long, or names another settlement of the account; the key was used for
    /// another request; too many wait, or were made within seven days.
    pub fn hand_record(
        &mut self,
        now: Now,
        request: HandRequest,
        out: &mut Effects,
    ) -> Result<Made<SettlementId>, CommandError> {
        let reference = request.reference.trim();
        let key = &request.idempotency_key;
        if let Some(made) = self.ledger.hand_settlement_by_key(key) {
            let same = request.is_of(made)
                && made.idempotency_key == *key
                && (&*made.account_name, &*made.reference) == (&*request.account, reference);
            if !same {
                return Err(key_used());
            }
            return Ok(Made::Existing(made.id));
        }
        let account = self
            .ledger
            .account_by_name(&request.account)
            .ok_or_else(|| CommandError::not_found("account", &request.account))?;
        let is_text = !reference.is_empty() && !reference.chars().any(char::is_control);
        if !is_text || reference.len() > REFERENCE_BYTES_MAX {
            let message = format!(
                "must name the transfer, in at most {REFERENCE_BYTES_MAX} bytes without control characters"
            );
            return Err(CommandError::invalid("reference", message));
        }
        if let Some(made) = self
            .ledger
            .hand_settlement_by_reference(account.id, reference)
        {
            if !request.is_of(made) {
                let message = format!(
                    "names settlement {} of '{}', which has another amount or direction",
                    made.id.0, request.account
                );
                return Err(CommandError::conflict("reference", message));
            }
            return Ok(Made::Existing(made.id));
        }
        self.check_hand_room(now)?;
        if request.amount == 0 {
            return Err(CommandError::invalid("amount", "must be greater than zero"));
        }
        check_limits(account, request.direction, request.amount)
            .map_err(|message| CommandError::invalid("amount", message))?;
        let id = self.ledger.next_settlement();
        let settlement = Box::new(HandSettlement {
            id,
            account: account.id,
            asset: account.settings.asset.clone(),
            direction: request.direction,
            amount: request.amount,
            reference: reference.to_owned(),
            account_name: request.account,
            by: request.by,
            idempotency_key: request.idempotency_key,
            created_at_ms: now.wall.unix_ms(),
            state: match self.settings.second_approver {
                true => HandState::Proposed,
                false => HandState::Settled { approval: None },
            },
        });
        self.record(&Record::HandSettlementMade { settlement }, out);
        Ok(Made::New(id))
    }

    fn check_hand_room(&self, now: Now) -> Result<(), CommandError> {
        if self.settings.second_approver && self.ledger.proposals().len() >= PROPOSALS_MAX {
            let message = format!("{PROPOSALS_MAX} settlements by hand wait to be approved");
            return Err(CommandError::busy(message));
        }
        let kept_until_ms =
            |made: &HandSettlement| made.created_at_ms.saturating_add(HAND_SETTLEMENT_KEPT_MS);
        if self.ledger.hand_settlements().len() >= HAND_SETTLEMENTS_MAX
            && let Some(oldest) = self.ledger.oldest_hand_settlement()
            && kept_until_ms(oldest) > now.wall.unix_ms()
        {
            let message = "too many settlements by hand within seven days";
            return Err(CommandError::busy(message));
        }
        Ok(())
    }

    /// A second operator says that a proposed settlement is right: it moves the balance. A second
    /// approval with the same key is the same.
    ///
    /// # Errors
    /// There is no such settlement; it is decided already; `by` is who proposed it; the limits of the
    /// account do not leave so much any more; the key was used for another request.
    pub fn hand_approve(
        &mut self,
        now: Now,
        id: SettlementId,
        by: &str,
        idempotency_key: &str,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        if let Some(known) = self.ledger.hand_settlement_by_key(idempotency_key) {
            let HandState::Settled {
                approval: Some(approval),
            } = &known.state
            else {
                return Err(key_used());
            };
            let same =
                (known.id, &*approval.by, &*approval.idempotency_key) == (id, by, idempotency_key);
            return if same { Ok(()) } else { Err(key_used()) };
        }
        let proposal = self.proposal(id)?;
        if proposal.by == by {
            let message = format!(
                "'{by}' proposed settlement {}: another operator, with a token of his own, approves it",
                id.0
            );
            return Err(CommandError::forbidden(message));
        }
        let account = self.ledger.account(proposal.account);
        let account = account.expect("an account with a proposal is not deleted");
        check_limits(account, proposal.direction, proposal.amount)
            .map_err(|message| CommandError::conflict("amount", message))?;
        let approval = Some(Approval {
            by: by.to_owned(),
            idempotency_key: idempotency_key.to_owned(),
            at_ms: now.wall.unix_ms(),
        });
        let state = HandState::Settled { approval };
        self.record(&Record::HandSettlementDecided { id, state }, out);
        Ok(())
    }

    /// An operator, who may be the one who proposed it, says that a settlement is wrong. Its reference
    /// may be used again.
    ///
    /// # Errors
    /// There is no such settlement, or it is decided already.
    pub fn hand_decline(
        &mut self,
        now: Now,
        id: SettlementId,
        by: &str,
        out: &mut Effects,
    ) -> Result<(), CommandError> {
        self.proposal(id)?;
        let state = HandState::Declined {
            by: by.to_owned(),
            at_ms: now.wall.unix_ms(),
        };
        self.record(&Record::HandSettlementDecided { id, state }, out);
        Ok(())
    }

    fn proposal(&self, id: SettlementId) -> Result<&HandSettlement, CommandError> {
        let made = self.ledger.hand_settlements().get(&id);
        let made =
            made.ok_or_else(|| CommandError::not_found("settlement by hand", &id.0.to_string()))?;
        let decided = match &made.state {
            HandState::Proposed => return Ok(made),
            HandState::Settled { .. } => "settled",
            HandState::Declined { .. } => "declined",
        };
        let message = format!("settlement {} is {decided} already", id.0);
        Err(CommandError::conflict("id", message))
    }
}

fn key_used() -> CommandError {
    let message = "this key was used for another request";
    CommandError::invalid("Idempotency-Key", message)
}

/// What they paid has no limit; what we paid leaves the balance as any settlement does.
fn check_limits(account: &Account, direction: Direction, amount: u64) -> Result<(), String> {
    match direction {
        Direction::Paid => check_available(account, amount),
        Direction::Received => Ok(()),
    }
}
