//! How many files and sockets the process may have open, and how many of them strangers may take.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Connections open to one I/O thread at a time, if there are files enough.
const CONNECTIONS_MAX: u64 = 16_384;

/// Raises the limit as far as it goes without asking anybody, and gives it.
///
/// What a shell or a service manager sets, often 1,024, is meant for programs that use `select`.
pub(crate) fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    let limit = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => raised,
        Err(_) => limit,
    };
    limit.current.unwrap_or(u64::MAX)
}

/// Connections that one of `workers` I/O threads may take while the process may have `files` open.
/// Half is kept: a journal that cannot open its next file stops the node.
pub(crate) fn connections_max(files: u64, workers: u16) -> usize {
    let share = files / 2 / u64::from(workers.max(1));
    usize::try_from(share.clamp(1, CONNECTIONS_MAX)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_leave_half_of_the_files() {
        assert_eq!(connections_max(1_024, 2), 256);
        assert_eq!(connections_max(u64::MAX, 2), 16_384);
        assert_eq!(connections_max(1, 64), 1);
    }

    #[test]
    fn the_limit_goes_up_to_what_may_be_had() {
        let limit = getrlimit(Resource::Nofile);
        let lowered = Rlimit {
            current: Some(512),
            ..limit
        };
        setrlimit(Resource::Nofile, lowered).unwrap();
        assert_eq!(raise(), limit.maximum.unwrap_or(u64::MAX));
        assert_eq!(getrlimit(Resource::Nofile).current, limit.maximum);
    }
}
