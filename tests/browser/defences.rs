//! What the pages of `examples/devices` prevent: forged forms, scripts and frames.

use crate::support::{Shop, Site, chromium_or_skip};

#[tokio::test]
async fn a_form_without_the_token_of_its_session_is_refused() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
    let token = "document.querySelector('[name=csrf]').value";
    let of_the_phone = phone.script(token).await;
    let changes = [
        "document.querySelectorAll('[name=csrf]').forEach(field => field.remove())".to_owned(),
        "document.querySelectorAll('[name=csrf]').forEach(field => field.value = '')".to_owned(),
        format!(
            "document.querySelectorAll('[name=csrf]').forEach(field => field.value = {of_the_phone})"
        ),
    ];
    for change in changes {
        desk.open(&shop.url("/devices")).await;
        desk.script(&change).await;
        desk.press("Sign out everywhere else").await;
        let page = desk.text().await;
        assert!(
            page.contains("This form is out of date"),
            "{change}: {page}"
        );
        shop.assert_is_signed_in(&phone).await;
    }

    // Before a login too, or other sites could sign visitors in.
    let visitor = chromium.profile().await;
    visitor.open(&shop.url("/sign-in")).await;
    visitor.fill("name", "alice").await;
    visitor.fill("password", "correct horse").await;
    visitor
        .script("document.querySelector('[name=csrf]').value = 'x'")
        .await;
    visitor.press("Sign in").await;
    let page = visitor.text().await;
    assert!(page.contains("This form is out of date"), "{page}");
    shop.assert_is_signed_out(&visitor).await;
}

#[tokio::test]
async fn no_page_runs_a_script_or_is_shown_in_a_frame() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let visitor = chromium.profile().await;
    visitor.open(&shop.url("/")).await;
    let planted = "(() => {
        const button = document.createElement('button');
        button.setAttribute('onclick', 'document.title = \"it ran\"');
        document.body.append(button);
        button.click();
        return document.title;
    })()";
    assert_eq!(
        visitor.script(planted).await,
        "What we have today · Corner shop"
    );

    let other = Site::new(|layer| layer).await;
    visitor.open(&other.url("/keys")).await;
    let framed = visitor.read_framed(&shop.url("/")).await;
    assert!(!framed.contains("What we have today"), "{framed}");
}

/// Needs no browser.
#[tokio::test]
async fn every_response_has_the_security_headers() {
    let shop = Shop::open().await;
    for (request, status) in [
        ("GET /", "200"),
        ("GET /devices", "303"),
        ("GET /nowhere", "404"),
        ("POST /sign-in", "400"),
        ("POST /devices/end-others", "400"),
        ("DELETE /devices", "400"),
    ] {
        let head = shop.head(request).await;
        assert!(head.starts_with(&format!("http/1.1 {status}")), "{head}");
        for promised in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "frame-ancestors 'none'",
            "referrer-policy: same-origin",
        ] {
            assert!(head.contains(promised), "{request}: {head}");
        }
    }
    let head = shop.head("GET /style.css").await;
    assert!(
        head.contains("cache-control: public, max-age=3600"),
        "{head}"
    );
    assert!(!head.contains("set-cookie"), "{head}");
}
