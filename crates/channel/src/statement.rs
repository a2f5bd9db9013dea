//! What either side can show of a channel, and what everybody can check without a node.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    channel::{Agreed, Channel, Paid},
    sign::{self, ChannelKey, Final, Word},
    terms::{ChannelId, Digest, Kind, Side, Signature, Terms},
    text,
};

/// The version of the files.
const FORMAT: u8 = 1;

/// What one side paid, with what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatementPaid {
    /// How many payments.
    pub count: u64,
    /// Their sum.
    #[serde(with = "text")]
    pub total: u64,
    /// The last one.
    #[serde(with = "text")]
    pub amount: u64,
    /// The terms of the last one.
    pub terms: Option<Digest>,
    /// The payer's under the last one.
    pub signature: Option<Signature>,
}

impl StatementPaid {
    fn of(paid: &Paid) -> Self {
        Self {
            count: paid.count,
            total: paid.total,
            amount: paid.amount,
            terms: paid.terms,
            signature: paid.signature,
        }
    }
}

/// A channel as one side states it, with the signatures that it has of the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Version of the file.
    pub rialto_channel_statement: u8,
    /// Which channel.
    pub channel: ChannelId,
    /// The side that wrote it.
    pub written_by: Side,
    /// Where the channel stands, in one word.
    pub state: String,
    /// What was agreed.
    pub terms: Terms,
    /// The signatures under the terms.
    pub agreed_opener: Option<Signature>,
    /// The same.
    pub agreed_accepter: Option<Signature>,
    /// What the opener paid.
    pub opener: StatementPaid,
    /// What the accepter paid.
    pub accepter: StatementPaid,
    /// The last word of the keeper, on an asymmetrical trustline.
    pub word: Option<Word>,
    /// How it ended, signed by the opener.
    pub final_opener: Option<Final>,
    /// How it ended, signed by the accepter.
    pub final_accepter: Option<Final>,
    /// The writer's, under all of the above.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// The first thing that is wrong with a statement.
#[derive(Debug, Error)]
pub enum StatementError {
    /// It is not one.
    #[error("is no channel statement: {0}")]
    Json(#[from] serde_json::Error),
    /// It is of another version.
    #[error("is of version {0}, only version {FORMAT} is known")]
    Format(u8),
    /// Its writer did not sign it as it is.
    #[error("the signature of its writer, the {0}, does not fit it: something in it was changed")]
    Writer(Side),
    /// The terms make no channel.
    #[error("terms: {0}")]
    Terms(#[from] crate::terms::TermsError),
    /// A side did not agree to the terms.
    #[error("terms: the {0} did not sign them")]
    Agreement(Side),
    /// The signature of a side under what it paid is missing or wrong.
    #[error("{0}: no signature of theirs proves that they paid {1} units")]
    Paid(Side, u64),
    /// The keeper's word is missing or wrong.
    #[error("word: no signature of the keeper, the {0}, proves where the account stands")]
    Word(Side),
    /// The keeper's word differs from the payments.
    #[error("word: it has {said} {what}, the payments have {known}: {} units differ", said.abs_diff(*known))]
    WordDiffers {
        /// `credited` or `debited`.
        what: &'static str,
        /// The word's.
        said: u64,
        /// The payments'.
        known: u64,
    },
    /// The final of a side is wrong.
    #[error("final_{0}: its signature or its totals do not fit")]
    Final(Side),
}

impl Statement {
    /// What can be shown of a channel now.
    pub fn of(channel: &Channel, key: &ChannelKey) -> Self {
        let (opener, accepter) = match channel.side {
            Side::Opener => (&channel.ours, &channel.theirs),
            Side::Accepter => (&channel.theirs, &channel.ours),
        };
        let (final_opener, final_accepter) = match channel.side {
            Side::Opener => (channel.our_final, channel.their_final),
            Side::Accepter => (channel.their_final, channel.our_final),
        };
        let Agreed {
            opener: agreed_opener,
            accepter: agreed_accepter,
        } = channel.agreed;
        let mut statement = Self {
            rialto_channel_statement: FORMAT,
            channel: channel.id,
            written_by: channel.side,
            state: channel.state_word().to_owned(),
            terms: channel.terms.clone(),
            agreed_opener,
            agreed_accepter,
            opener: StatementPaid::of(opener),
            accepter: StatementPaid::of(accepter),
            word: channel.word,
            final_opener,
            final_accepter,
            signature: None,
        };
        statement.signature = Some(key.sign(&statement.signed()));
        statement
    }

    /// Reads a file.
    pub fn parse(json: &[u8]) -> Result<Self, StatementError> {
        Ok(serde_json::from_slice(json)?)
    }

    /// The bytes of a file.
    pub fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec_pretty(self).expect("a statement has text keys");
        json.push(b'\n');
        json
    }

    /// What the writer signs: the statement without that signature, as JSON without white space.
    fn signed(&self) -> Vec<u8> {
        let unsigned = Self {
            signature: None,
            ..self.clone()
        };
        let json = serde_json::to_vec(&unsigned).expect("a statement has text keys");
        sign::statement(&json)
    }

    /// Checks every signature and that the sums agree; the first thing that is wrong is the error.
    pub fn verify(&self) -> Result<(), StatementError> {
        if self.rialto_channel_statement != FORMAT {
            return Err(StatementError::Format(self.rialto_channel_statement));
        }
        let writer = self.written_by;
        let writer_key = self.terms.key_of(writer);
        let is_signed = |signature| writer_key.verifies(&self.signed(), signature);
        if !self.signature.as_ref().is_some_and(is_signed) {
            return Err(StatementError::Writer(writer));
        }
        self.terms.check()?;
        for side in [Side::Opener, Side::Accepter] {
            self.verify_agreement(side)?;
        }
        for side in [Side::Opener, Side::Accepter] {
            self.verify_paid(side)?;
        }
        self.verify_word()?;
        for side in [Side::Opener, Side::Accepter] {
            self.verify_final(side)?;
        }
        Ok(())
    }

    /// What the opener owes the accepter over the channel; the other way round below zero.
    pub fn opener_owes(&self) -> i128 {
        i128::from(self.opener.total) - i128::from(self.accepter.total)
    }

    fn verify_agreement(&self, side: Side) -> Result<(), StatementError> {
        let signature = match side {
            Side::Opener => &self.agreed_opener,
            Side::Accepter => &self.agreed_accepter,
        };
        let signed = sign::agreement(self.channel, &self.terms, side);
        let verifies = |signature| self.terms.key_of(side).verifies(&signed, signature);
        match signature {
            Some(signature) if verifies(signature) => Ok(()),
            // A channel that never opened carried nothing.
            None if side == Side::Accepter
                && self.opener.total == 0
                && self.accepter.total == 0 =>
            {
                Ok(())
            }
            _ => Err(StatementError::Agreement(side)),
        }
    }

    fn paid(&self, side: Side) -> &StatementPaid {
        match side {
            Side::Opener => &self.opener,
            Side::Accepter => &self.accepter,
        }
    }

    fn verify_paid(&self, side: Side) -> Result<(), StatementError> {
        let paid = self.paid(side);
        // The keeper of an asymmetrical trustline gives its word instead.
        if paid.total == 0 || self.terms.keeper() == Some(side) {
            return Ok(());
        }
        let wrong = || StatementError::Paid(side, paid.total);
        let terms = paid.terms.ok_or_else(wrong)?;
        let signed = match self.terms.kind {
            Kind::SymmetricalTrustline => {
                sign::claim(self.channel, &self.terms, terms, side, paid.total)
            }
            Kind::AsymmetricalTrustline => {
                let StatementPaid {
                    count,
                    amount,
                    total,
                    ..
                } = *paid;
                sign::order(self.channel, &self.terms, terms, count, amount, total)
            }
        };
        let key = self.terms.key_of(side);
        match &paid.signature {
            Some(signature) if key.verifies(&signed, signature) => Ok(()),
            _ => Err(wrong()),
        }
    }

    fn verify_word(&self) -> Result<(), StatementError> {
        let Some(keeper) = self.terms.keeper() else {
            return Ok(());
        };
        let credited = self.paid(keeper).total;
        let debited = self.paid(keeper.other()).total;
        let Some(word) = &self.word else {
            return match credited {
                0 => Ok(()), // the holder had nothing to order either
                _ => Err(StatementError::Word(keeper)),
            };
        };
        let signed = sign::word(
            self.channel,
            &self.terms,
            word.terms,
            word.credited,
            word.debited,
        );
        if !self.terms.key_of(keeper).verifies(&signed, &word.signature) {
            return Err(StatementError::Word(keeper));
        }
        if word.credited != credited {
            return Err(StatementError::WordDiffers {
                what: "credited",
                said: word.credited,
                known: credited,
            });
        }
        // An order of the holder may still be under way, and then the word has less.
        if word.debited > debited || self.written_by == keeper && word.debited != debited {
            return Err(StatementError::WordDiffers {
                what: "debited",
                said: word.debited,
                known: debited,
            });
        }
        Ok(())
    }

    fn verify_final(&self, side: Side) -> Result<(), StatementError> {
        let ending = match side {
            Side::Opener => &self.final_opener,
            Side::Accepter => &self.final_accepter,
        };
        let Some(ending) = ending else {
            return match self.state.as_str() {
                "closed" => Err(StatementError::Final(side)),
                _ => Ok(()),
            };
        };
        let (opener, accepter) = (ending.opener_paid, ending.accepter_paid);
        let signed = sign::ending(self.channel, &self.terms, side, opener, accepter);
        let verifies = self.terms.key_of(side).verifies(&signed, &ending.signature);
        if !verifies || (opener, accepter) != (self.opener.total, self.accepter.total) {
            return Err(StatementError::Final(side));
        }
        Ok(())
    }
}
