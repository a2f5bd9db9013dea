//! What can be wrong with what a peer tells: one closed set and one table.

macro_rules! troubles {
    ($($trouble:ident $word:literal $message:literal;)*) => {
        /// Something that a peer told and that was not taken, or not told in time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum RouteTrouble {
            $(#[doc = $message] $trouble,)*
        }

        impl RouteTrouble {
            /// Every one, in the order of their numbers.
            pub const ALL: [Self; [$(Self::$trouble),*].len()] = [$(Self::$trouble),*];

            /// Stable word: metric label, log and API field.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$trouble => $word,)* }
            }

            /// What an operator is told, once a minute at most.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$trouble => $message,)* }
            }
        }
    };
}

troubles! {
    Malformed "malformed" "the message is not well-formed: it was refused";
    Gap "gap" "an update is missing before this one: it was refused and asked for";
    ForeignTable "foreign_table" "the update belongs to another table than the one we know: it was refused and the other was asked for";
    OldEpoch "old_epoch" "the update is older than what we know: it was ignored";
    Busy "busy" "more updates came than are taken at the same time: it was refused and may come again";
    Expired "expired" "no update came within the hold-down time: the peer's routes are no longer used";
    NotSpoken "not_spoken" "the peer does not speak CCP: set routes by hand, and `routes.receive` to false";
    NotTold "not_told" "the peer refuses to tell us its routes: ask its operator, or set `routes.receive` to false";
    NotTaken "not_taken" "the peer does not take our routes: ask its operator, or set `routes.send` to false";
    OwnPrefix "own_prefix" "the prefix is ours, or under ours: the route is not used";
    PeerPrefix "peer_prefix" "nobody is routed to under 'peer': the route is not used";
    OtherNetwork "other_network" "the prefix is of another network than ours: the route is not used";
    TooGeneral "too_general" "the prefix is everything, or a whole network: the route is not used; set such a route by hand";
    TooDeep "too_deep" "the prefix has more than 32 segments: the route is not used";
    Loop "loop" "the path leads through us: the route is not used";
    PathTooLong "path_too_long" "the path has more than 64 nodes: the route is not used";
    NotTheirs "not_theirs" "a child may only tell routes under its own address: the route is not used; `routes.prefixes` of the account allows others";
    Filtered "filtered" "the prefix is not under one of `routes.prefixes` of the account: the route is not used";
    TooMany "too_many" "the peer tells more routes than `routes.count_max` of its account: those beyond it are not used";
    Flapping "flapping" "the route comes and goes: it is not used until it has been quiet";
}
