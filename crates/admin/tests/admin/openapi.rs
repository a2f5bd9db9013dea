//! The description of the API is checked in; whoever changes the API sees it in the diff.

#[test]
fn openapi_json_describes_the_api_as_it_is() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let made = rialto_admin::openapi().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let checked_in = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        made == checked_in,
        "the API changed: run `UPDATE=1 cargo test -p rialto-admin openapi` and commit \
         crates/admin/openapi.json"
    );
}
