//! Accounts, holds, commits and limits; the journal's records and their replay.
