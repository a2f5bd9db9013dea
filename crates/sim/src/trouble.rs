//! What settlement engines and the other sides of channels do to a node, counted: a kind of failure that
//! no schedule has shows nothing.

use std::fmt;

words! {
    /// One kind of failure.
    pub enum Trouble {
        /// An engine takes a request and is silent.
        EngineHangs = "an engine hangs",
        /// An engine answers 500.
        EngineFails = "an engine answers 500",
        /// An engine is not there.
        EngineDead = "an engine is dead",
        /// An engine says that it never will.
        EngineRefuses = "an engine refuses for good",
        /// What a node asks does not arrive.
        AskLost = "a request to an engine is lost",
        /// It arrives after the node has given up, and perhaps asked again.
        AskLate = "an engine gets a request after the retry",
        /// The engine did it, and the node does not hear so.
        AnswerLost = "an engine's answer is lost",
        /// An engine loses its accounts and keys.
        StateLost = "an engine loses its state",
        /// An engine does not know an account.
        AccountUnknown = "an engine answers 404",
        /// An engine pays again what it has forgotten.
        PaidAgain = "an engine pays again what it forgot",
        /// An engine reports again what was acknowledged.
        ReportAgain = "an engine reports what was acknowledged",
        /// An engine reports under a key that was used for another amount.
        ReportChanged = "an engine reports another amount under a key",
        /// An engine reports for an account that does not exist.
        ReportStray = "an engine calls for an unknown account",
        /// An engine reports more than an account can have.
        ReportHuge = "an engine reports more than 64 bits",
        /// A claim, order or credit that does not rise.
        ClaimLower = "a claim with a lower counter",
        /// A claim for more than the limit.
        ClaimAbove = "a claim above the limit",
        /// A claim whose signature is none.
        ClaimUnsigned = "a claim with a wrong signature",
        /// A claim that was signed for another channel.
        ClaimForeign = "a claim with another channel's signature",
        /// A claim under terms that nobody agreed to.
        ClaimTerms = "a claim under other terms",
        /// A final statement of more than was paid.
        FinalHigher = "a final statement of more than was paid",
        /// An answer to what nobody offered.
        AcceptStray = "an acceptance of nothing",
        /// A frame that was answered comes again.
        FrameAgain = "a frame is repeated",
        /// A frame ends too early.
        FrameCut = "a frame is truncated",
        /// A frame goes on after its end.
        FrameLonger = "a frame has a byte too many",
        /// A frame has a bit that it should not have.
        FrameBent = "a frame has a wrong bit",
        /// A frame of a channel that does not exist.
        FrameStray = "a frame of an unknown channel",
        /// A frame of another kind than its channel's.
        FrameKind = "a frame of the other kind",
        /// A frame of a kind that does not exist.
        FrameUnknownKind = "a frame of an unknown kind",
        /// A frame that is not the next.
        FrameOutOfOrder = "a frame out of order",
        /// A good message gets a wrong answer, or none.
        AnswerFalse = "a frame is answered wrongly",
        /// A channel is closed while its account has packets in flight.
        ClosedInFlight = "a channel is closed while packets are in flight",
    }
}

/// How often each happened.
#[derive(Clone, PartialEq, Eq)]
pub struct Troubles([u64; Trouble::ALL.len()]);

impl Default for Troubles {
    fn default() -> Self {
        Self([0; Trouble::ALL.len()])
    }
}

impl Troubles {
    /// One more.
    pub(crate) fn count(&mut self, trouble: Trouble) {
        self.0[trouble as usize] += 1;
    }

    /// Adds those of another run.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, more) in self.0.iter_mut().zip(other.0) {
            *sum += more;
        }
    }

    /// How often this one happened.
    pub fn of(&self, trouble: Trouble) -> u64 {
        self.0[trouble as usize]
    }

    /// Those that never happened.
    pub fn missing(&self) -> Vec<&'static str> {
        let all = Trouble::ALL.iter();
        let missing = all.filter(|trouble| self.of(**trouble) == 0);
        missing.map(|trouble| trouble.word()).collect()
    }
}

impl fmt::Debug for Troubles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Trouble::ALL.iter();
        let all = all.map(|trouble| (trouble.word(), self.of(*trouble)));
        f.debug_map().entries(all).finish()
    }
}
