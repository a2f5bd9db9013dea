//! How long packets live.

use crate::story::check;

const PEERS: &str = "
    account alice USD/9 credit 1000
    account bob   USD/9
    route   g.bob -> bob
";

#[track_caller]
fn peers(story: &str) {
    check(&format!("{PEERS}{story}"));
}

#[test]
fn each_hop_takes_one_message_window() {
    peers(
        "
        alice prepare 1 g.bob.x 1 expires 10s       -> bob prepare expires 9s
        alice prepare 2 g.bob.x 1 expires 2s        -> bob prepare expires 1s
        alice prepare 3 g.bob.x 1 expires 1999ms    -> alice reject R02 expiry.too_soon by g.hub
        alice prepare 4 g.bob.x 1 expires 1ms       -> alice reject R02 expiry.too_soon
        wait 9s                                     -> alice reject #2 R00, alice reject #1 R00
    ",
    );
}

#[test]
fn a_far_expiry_is_cut_to_the_longest_hold() {
    peers("
        alice prepare 1 g.bob.x 1 expires 31s       -> bob prepare expires 30s
        alice prepare 2 g.bob.x 1 expires 31001ms   -> bob prepare expires 30s
        alice prepare 3 g.bob.x 1 expires 30999ms   -> bob prepare expires 29999ms
        alice prepare 4 g.bob.x 1 expires 24h       -> bob prepare expires 30s
        alice prepare 5 g.bob.x 1 expires never     -> bob prepare expires 30s
        wait 29999ms                                -> alice reject #3 R00
        wait 1ms                                    -> alice reject R00, alice reject R00, alice reject R00, alice reject R00
    ");
}

#[test]
fn window_and_hold_are_the_operators() {
    check("
        node g.hub window 300ms hold 2s
        account alice USD/9 credit 1000
        account bob   USD/9
        route   g.bob -> bob
        alice prepare 1 g.bob.x 1 expires 1s        -> bob prepare expires 700ms
        alice prepare 2 g.bob.x 1 expires 10s       -> bob prepare expires 2s
        alice prepare 3 g.bob.x 1 expires 600ms     -> bob prepare expires 300ms
        alice prepare 4 g.bob.x 1 expires 599ms     -> alice reject R02
        wait 2s                                     -> alice reject #3, alice reject #1, alice reject #2
    ");
}

#[test]
fn what_has_expired_is_refused() {
    peers(
        "
        alice prepare 1 g.bob.x 1 expires 0s        -> alice reject R00 pkt.expired by g.hub
        alice prepare 2 g.bob.x 1 expires -1s       -> alice reject R00 pkt.expired
        alice prepare 3 g.hub 1 expires 0s condition ping       -> alice reject R00 pkt.expired
        alice prepare 4 peer.config 0 expires 0s condition peer -> alice reject R00 pkt.expired
    ",
    );
}

#[test]
fn a_step_of_the_wall_clock_neither_kills_nor_revives() {
    peers(
        "
        alice prepare 1 g.bob.x 1 expires 10s       -> bob prepare expires 9s
        alice prepare 2 g.bob.x 1 expires 10s       -> bob prepare expires 9s
        clock +1h
        wait 1s
        bob fulfill 1                               -> alice fulfill
        clock -2h
        wait 7999ms
        wait 1ms                                    -> alice reject R00 expiry.timed_out
        bob fulfill 2                               -> late bob 1
    ",
    );
}

#[test]
fn after_a_step_new_packets_go_by_the_new_time() {
    peers(
        "
        clock +1h
        alice prepare 1 g.bob.x 1 expires 10s       -> bob prepare expires 9s
        clock -2h
        alice prepare 2 g.bob.x 1 expires 5s        -> bob prepare expires 4s
        wait 4s                                     -> alice reject #2
        wait 4999ms
        wait 1ms                                    -> alice reject #1
    ",
    );
}

#[test]
fn packets_to_our_own_receivers_lose_no_time() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 local
        alice prepare 1 g.hub.bob.token 1 expires 1ms  -> alice reject
        alice prepare 2 g.hub.bob.token 1 expires 0s   -> alice reject R00 pkt.expired
    ",
    );
}
