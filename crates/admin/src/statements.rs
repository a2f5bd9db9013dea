//! Statements of accounts.

use axum::{Json, extract::State, http::StatusCode};
use rialto_ledger::{self as ledger, text};
use serde::Deserialize;

use crate::{
    Api, Problem,
    auth::{Allowed, ToRead, ToWrite},
    extract,
    page::PageQuery,
    rfc3339,
    shapes::{SignedAmount, Statement, Statements},
};

#[derive(Debug, Default, Deserialize, utoipa::IntoParams)]
#[serde(default, deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatementsQuery {
    /// `next_cursor` of the page before.
    cursor: Option<String>,
    /// Entries on the page, 1 to 200; 50 where it is left out.
    #[serde(with = "text::option")]
    #[param(minimum = 1, maximum = 200)]
    limit: Option<usize>,
}

/// Statements of an account, newest first.
#[utoipa::path(
    get,
    path = "/v1/accounts/{name}/statements",
    operation_id = "list_statements",
    tag = "statements",
    security(("bearer" = ["read"])),
    params(("name" = String, Path, description = "Name of the account"), StatementsQuery),
    responses(
        (status = 200, description = "A page", body = Statements),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    _: Allowed<ToRead>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
    extract::Query(query): extract::Query<StatementsQuery>,
) -> Result<Json<Statements>, Problem> {
    let page = PageQuery::new(query.cursor, query.limit).check()?;
    let listed = api.node.read(|connector| {
        let ledger = connector.ledger();
        let account = ledger.account_by_name(&name);
        let account = account.ok_or_else(|| Problem::not_found("account", &name))?;
        let end = page.after.unwrap_or(u64::MAX);
        let wanted = ledger.statements(account.id).rev();
        let wanted = wanted.filter(|statement| u64::from(statement.number) < end);
        let (statements, next_cursor) = page.cut(wanted, |statement| statement.number.into());
        Ok::<_, Problem>(Statements {
            statements: statements.into_iter().map(shape).collect(),
            next_cursor,
        })
    })?;
    Ok(Json(listed))
}

/// Makes a statement of what happened on an account since the last one.
#[utoipa::path(
    post,
    path = "/v1/accounts/{name}/statements",
    operation_id = "create_statement",
    tag = "statements",
    security(("bearer" = ["write"])),
    params(("name" = String, Path, description = "Name of the account")),
    responses(
        (status = 201, description = "The statement", body = Statement),
        (status = "default", description = "What went wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    _: Allowed<ToWrite>,
    State(api): State<Api>,
    extract::Path(name): extract::Path,
) -> Result<(StatusCode, Json<Statement>), Problem> {
    let made = api.node.execute(move |connector, now, out| {
        let made = connector.statement_close(now, &name, out)?;
        Ok::<_, Problem>((StatusCode::CREATED, Json(shape(&made))))
    });
    made.await?
}

fn shape(made: &ledger::Statement) -> Statement {
    Statement {
        account: made.account_name.clone(),
        number: made.number,
        closed_at: rfc3339(made.closed_at_ms),
        closing: SignedAmount(made.closing),
        text: made.text.clone(),
        hash: made.hash.clone(),
        signature: made.signature.clone(),
    }
}
