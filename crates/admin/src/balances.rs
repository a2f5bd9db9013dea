//! Who owes whom.

use axum::{Json, extract::State};
use rialto_ledger::Account;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead},
    extract,
    page::{self, PageQuery},
    shapes::{Balance, Balances, InFlight, Position, SignedAmount},
    words,
};

/// Balances, of the oldest account first, in numbers and in words, and the node's own positions.
#[utoipa::path(
    get,
    path = "/v1/balances",
    operation_id = "list_balances",
    tag = "balances",
    security(("bearer" = ["read"])),
    params(PageQuery),
    responses(
        (status = 200, description = "A page, and the positions beside it", body = Balances),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Query(query): extract::Query<PageQuery>,
) -> Result<Json<Balances>, Problem> {
    let page = query.check()?;
    Ok(Json(api.node.read(|connector| {
        let (accounts, next_cursor) = page::accounts(connector, page);
        let ledger = connector.ledger();
        let positions = ledger.positions().zip(ledger.settled());
        Balances {
            balances: accounts.into_iter().map(shape).collect(),
            positions: positions
                .map(|((asset, amount, _), (_, settled))| Position {
                    asset_code: asset.code().to_owned(),
                    asset_scale: asset.scale(),
                    amount: SignedAmount(amount),
                    settled: SignedAmount(settled),
                })
                .collect(),
            next_cursor,
        }
    })))
}

fn shape(account: &Account) -> Balance {
    let asset = &account.settings.asset;
    Balance {
        account: account.settings.name.clone(),
        asset_code: asset.code().to_owned(),
        asset_scale: asset.scale(),
        balance: SignedAmount(account.balance()),
        available: SignedAmount(account.available()),
        in_flight: in_flight(account),
        words: in_words(account),
    }
}

pub(crate) fn in_flight(account: &Account) -> InFlight {
    let exposure = account.exposure();
    InFlight {
        count: exposure.in_flight_count,
        amount: signed(exposure.in_flight),
    }
}

pub(crate) fn in_words(account: &Account) -> String {
    words::balance(
        &account.settings.name,
        &account.settings.asset,
        account.balance(),
        account.available(),
    )
}

/// Sums of what packets carry stay far below 2^127.
pub(crate) fn signed(amount: u128) -> SignedAmount {
    SignedAmount(i128::try_from(amount).unwrap_or(i128::MAX))
}
