//! Where packets go.

use crate::story::check;

#[test]
fn the_longest_prefix_wins() {
    check("
        account alice USD/9 credit 100
        account bob   USD/9
        account carol USD/9
        route   g.b     -> bob
        route   g.b.c   -> carol
        alice prepare 1 g.b.x 1         -> bob prepare
        alice prepare 2 g.b.c 1         -> carol prepare
        alice prepare 3 g.b.c.d 1       -> carol prepare
        alice prepare 4 g.b.cd 1        -> bob prepare
        alice prepare 5 g.bc 1          -> alice reject F02 route.none by g.hub
        alice prepare 6 g.B.c 1         -> alice reject F02 route.none
        route   g.b.c none
        alice prepare 7 g.b.c 1         -> bob prepare
        route   g.b.c none              -> notfound
        wait 9s                         -> alice reject, alice reject, alice reject, alice reject, alice reject
    ");
}

#[test]
fn the_parent_takes_what_nobody_else_does_in_its_own_network() {
    check(
        "
        account alice  USD/9 credit 100
        account parent USD/9 parent credit 100
        account bob    USD/9 child credit 100
        alice prepare 1 g.far.away 1        -> parent prepare
        alice prepare 2 g.hub.bob.x 1       -> bob prepare
        alice prepare 3 test.far.away 1     -> alice reject F02 route.none
        alice prepare 4 example.away 1      -> alice reject F02 route.none
        alice prepare 5 g.hub.nobody 1      -> alice reject F02 route.none
        parent prepare 6 g.far.away 1       -> parent reject F02 route.loop
        account second USD/9 parent         -> conflict relation
        wait 9s                             -> alice reject, alice reject
    ",
    );
}

#[test]
fn live_and_test_money_are_not_mixed() {
    for (own, other) in [
        ("g", "test"),
        ("g", "test3"),
        ("test", "g"),
        ("test", "test1"),
        ("test2", "test3"),
    ] {
        check(&format!(
            "
            node {own}.hub
            account alice USD/9 credit 100
            account bob   USD/9
            route   {own} -> bob
            route   {other} -> bob
            route   everything -> bob
            alice prepare 1 {other}.x 1     -> alice reject F02 route.none
            alice prepare 2 {own}.x 1       -> bob prepare
            alice prepare 3 private.x 1     -> bob prepare
            bob fulfill 2                   -> alice fulfill
            bob fulfill 3                   -> alice fulfill
        "
        ));
    }
}

#[test]
fn the_default_route_covers_what_no_other_does() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9
        account carol USD/9
        route   everything -> bob
        route   g.carol    -> carol
        alice prepare 1 g.x 1           -> bob prepare
        alice prepare 2 g.carol 1       -> carol prepare
        alice prepare 3 test.x 1        -> alice reject F02
        wait 9s                         -> alice reject, alice reject
    ",
    );
}

#[test]
fn who_may_get_a_packet_back() {
    check(
        "
        account peer   USD/9 credit 100
        account parent USD/9 parent credit 100
        account child  USD/9 child credit 100
        route   g.peer -> peer
        peer prepare 1 g.peer.x 1           -> peer reject F02 route.loop by g.hub
        parent prepare 2 g.elsewhere 1      -> parent reject F02 route.loop
        child prepare 3 g.hub.child.x 7     -> child prepare 7
        exposure child                      -> 1, 7, 0
        child fulfill 3                     -> child fulfill
        balances                            -> peer 0, parent 0, child 0, held 0
    ",
    );
}

#[test]
fn an_account_has_the_address_it_was_given_or_ours_and_its_name() {
    check(
        "
        account alice USD/9 credit 100
        account bob   USD/9 child
        account carol USD/9 child address g.carol
        account dave  USD/9 peer address g.dave
        alice prepare 1 g.hub.bob 1         -> bob prepare
        alice prepare 2 g.carol.x 1         -> carol prepare
        alice prepare 3 g.hub.carol 1       -> alice reject F02 route.none
        alice prepare 4 g.dave 1            -> dave prepare
        wait 9s                             -> alice reject, alice reject, alice reject
    ",
    );
}

#[test]
fn a_static_route_wins_over_others_of_its_prefix() {
    let node = check(
        "
        account alice  USD/9 credit 100
        account bob    USD/9 child
        account carol  USD/9
        account parent USD/9 parent
        route   g.hub.bob -> carol
        route   g         -> carol
        alice prepare 1 g.hub.bob 1         -> carol prepare
        alice prepare 2 g.far 1             -> carol prepare
        route   g none
        alice prepare 3 g.far 1             -> parent prepare
        wait 9s                             -> alice reject, alice reject, alice reject
    ",
    );
    let routes = node.core.routes();
    let routes: Vec<_> = routes
        .iter()
        .map(|route| {
            let hop = route.account.map_or("us".to_owned(), |id| node.name(id));
            format!("{} {:?} {hop}", route.prefix, route.source)
        })
        .collect();
    assert_eq!(
        routes,
        ["g Parent parent", "g.hub Own us", "g.hub.bob Static carol"]
    );
}

#[test]
fn routes_that_make_no_sense() {
    check(
        "
        account alice USD/9
        route   peer    -> alice        -> invalid prefix
        route   peer.x  -> alice        -> invalid prefix
        route   g.x     -> nobody       -> invalid account
        route   g.x none                -> notfound
    ",
    );
}
