//! Balances as their operator corrects them: after a restored backup, or a disk that failed.

use rialto_ledger::{ADJUSTMENTS_MAX, Adjustment, Record};

use crate::{
    Connector,
    command::{CommandError, Made},
    io::{Effects, Now},
};

/// How long an adjustment is kept at least, so that its key means the same adjustment. Milliseconds.
pub const ADJUSTMENT_KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// Longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 1_000;

/// An adjustment as a caller asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdjustmentRequest {
    /// Name of the account.
    pub account: String,
    /// Added to the balance, in units of the account's asset: positive when the node owes more.
    pub amount: i128,
    /// Why, for whoever reads the books later.
    pub reason: String,
    /// The caller's key.
    pub idempotency_key: String,
}

impl Connector {
    /// Adds an amount to an account's balance and takes it from the node's own position, so that the
    /// books go on adding up. Limits do not stand in the way: they are for packets, and what an
    /// operator writes down has happened already.
    ///
    /// # Errors
    /// There is no such account; the amount is zero, or larger than a packet's could be; the reason is
    /// empty or too long; the key was used for another request; too many within seven days.
    pub fn account_adjust(
        &mut self,
        now: Now,
        request: AdjustmentRequest,
        out: &mut Effects,
    ) -> Result<Made<u64>, CommandError> {
        let key = request.idempotency_key;
        if let Some(made) = self.ledger.adjustment_by_key(&key) {
            let same = (made.account_name == request.account)
                && (made.amount, &made.reason) == (request.amount, &request.reason);
            if !same {
                let message = "this key was used for another request";
                return Err(CommandError::invalid("Idempotency-Key", message));
            }
            return Ok(Made::Existing(made.id));
        }
        let account = self
            .ledger
            .account_by_name(&request.account)
            .ok_or_else(|| CommandError::not_found("account", &request.account))?;
        if !(1..=u128::from(u64::MAX)).contains(&request.amount.unsigned_abs()) {
            let message = format!("must be a number of units up to {}, and not zero", u64::MAX);
            return Err(CommandError::invalid("amount", message));
        }
        if request.reason.trim().is_empty() || request.reason.len() > REASON_BYTES_MAX {
            let message = format!("must say why, in at most {REASON_BYTES_MAX} bytes");
            return Err(CommandError::invalid("reason", message));
        }
        let adjustments = self.ledger.adjustments();
        let kept_until_ms = |made: &Adjustment| made.created_at_ms + ADJUSTMENT_KEPT_MS;
        if adjustments.len() >= ADJUSTMENTS_MAX
            && let Some((_, oldest)) = adjustments.first_key_value()
            && kept_until_ms(oldest) > now.wall.unix_ms()
        {
            return Err(CommandError::busy("too many adjustments within seven days"));
        }
        let id = adjustments.last_key_value().map_or(1, |(last, _)| last + 1);
        let adjustment = Box::new(Adjustment {
            id,
            account: account.id,
            account_name: request.account,
            asset: account.settings.asset.clone(),
            amount: request.amount,
            reason: request.reason,
            idempotency_key: key,
            created_at_ms: now.wall.unix_ms(),
        });
        self.record(&Record::Adjusted { adjustment }, out);
        Ok(Made::New(id))
    }
}
