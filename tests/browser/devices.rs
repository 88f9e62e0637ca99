//! `examples/devices` in two browsers, as its visitors use it.

use crate::support::{Chromium, Cookie, Lifetime, Profile, Shop, Site, Window, chromium_or_skip};

const PHONE: &str = "--user-agent=Mozilla/5.0 (Linux; Android 15; Pixel 9) AppleWebKit/537.36 \
                     (KHTML, like Gecko) Chrome/156.0.0.0 Mobile Safari/537.36";

/// Alice, signed in at her desk and with her phone.
async fn on_two_devices(chromium: &Chromium, shop: &Shop) -> (Profile, Profile) {
    let (desk, phone) = tokio::join!(chromium.profile(), chromium.profile_with(&[PHONE]));
    shop.sign_up(&desk, "alice").await;
    shop.sign_in(&phone, "alice").await;
    (desk, phone)
}

async fn assert_is_signed_out(shop: &Shop, visitor: &Profile) {
    let page = visitor.read(&shop.url("/devices")).await;
    assert!(page.contains("Please sign in."), "{page}");
    assert_eq!(visitor.url().await, shop.url("/sign-in"));
}

async fn assert_is_signed_in(shop: &Shop, visitor: &Profile) {
    let page = visitor.read(&shop.url("/devices")).await;
    assert!(page.contains("Your devices"), "{page}");
}

#[tokio::test]
async fn a_user_sees_both_devices_and_ends_one_from_the_other() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
    for (device, this) in [(&desk, "Linux"), (&phone, "Android")] {
        let page = device.read(&shop.url("/devices")).await;
        for name in ["Chrome on Linux", "Chrome on Android"] {
            assert!(page.contains(name), "{page}");
        }
        assert_eq!(page.matches("this device").count(), 1, "{page}");
        assert!(page.contains(&format!("{this} this device")), "{page}");
    }

    desk.press_in("Android", "Sign out").await;
    let page = desk.text().await;
    assert!(page.contains("That device is signed out."), "{page}");
    assert!(!page.contains("Android"), "{page}");
    assert_is_signed_out(&shop, &phone).await;
    assert_is_signed_in(&shop, &desk).await;
}

#[tokio::test]
async fn signing_out_everywhere_else_leaves_this_device_and_other_users() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
    let bob = chromium.profile().await;
    shop.sign_up(&bob, "bob").await;

    phone.press("Sign out everywhere else").await;
    let page = phone.text().await;
    assert!(page.contains("One other device is signed out."), "{page}");
    assert_is_signed_out(&shop, &desk).await;
    assert_is_signed_in(&shop, &phone).await;
    assert_is_signed_in(&shop, &bob).await;
}

#[tokio::test]
async fn nobody_ends_the_session_of_another_user() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, _phone) = on_two_devices(&chromium, &shop).await;
    let bob = chromium.profile().await;
    shop.sign_up(&bob, "bob").await;
    let handle: String = sqlx::query_scalar("SELECT id FROM session WHERE user_id = 'bob'")
        .fetch_one(&shop.pool)
        .await
        .expect("Bob's session");

    let put = format!("document.querySelector('input[name=id]').value = '{handle}'");
    desk.open(&shop.url("/devices")).await;
    desk.script(&put).await;
    desk.press_in("Android", "Sign out").await;
    let page = desk.text().await;
    assert!(page.contains("was signed out already"), "{page}");
    assert_is_signed_in(&shop, &bob).await;
}

#[tokio::test]
async fn after_logout_the_back_button_shows_nothing_private() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
    desk.press("Sign out").await;
    assert_eq!(desk.url().await, shop.url("/"));
    desk.back().await;
    let page = desk.text().await;
    assert!(
        !page.contains("alice") && !page.contains("Chrome on"),
        "{page}"
    );
    assert_is_signed_out(&shop, &desk).await;
    assert_is_signed_in(&shop, &phone).await;
}

#[tokio::test]
async fn the_cookie_is_as_promised_and_new_with_each_login() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let visitor = chromium.profile().await;
    visitor.open(&shop.url("/sign-up")).await;
    let before = visitor.cookie("__Host-id").await;
    shop.sign_up(&visitor, "alice").await;
    let after = visitor.cookie("__Host-id").await;
    assert_eq!(visitor.cookies().await, [Cookie::by_default()]);
    assert_eq!(after.lifetime(), Lifetime::Days(1));
    assert_ne!(before.value(), after.value());
}

#[tokio::test]
async fn who_is_remembered_stays_signed_in_for_longer() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
    shop.sign_in_and_stay(&phone, "alice").await;
    assert_eq!(desk.cookie("__Host-id").await.lifetime(), Lifetime::Days(1));
    assert_eq!(
        phone.cookie("__Host-id").await.lifetime(),
        Lifetime::Days(180)
    );
    let hours: Vec<i32> = sqlx::query_scalar(
        "SELECT round(extract(epoch FROM expiry - now()) / 3600)::int4 FROM session
         WHERE user_id = 'alice' ORDER BY expiry",
    )
    .fetch_all(&shop.pool)
    .await
    .expect("two rows");
    assert_eq!(hours, [2, 30 * 24]);
}

#[tokio::test]
async fn a_basket_survives_the_login_and_a_message_is_shown_once() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let visitor = chromium.profile().await;
    visitor.open(&shop.url("/")).await;
    visitor.press("Add Green tea").await;
    visitor.press("Add Green tea").await;
    visitor.press("Add Rye bread").await;
    let page = visitor.text().await;
    assert!(page.contains("Rye bread is in your basket."), "{page}");
    let page = visitor.read(&shop.url("/")).await;
    assert!(!page.contains("is in your basket."), "{page}");

    shop.sign_up(&visitor, "alice").await;
    let page = visitor.text().await;
    assert!(
        page.contains("Welcome, alice.") && page.contains("Basket 3"),
        "{page}"
    );
    let page = visitor.read(&shop.url("/")).await;
    assert!(
        page.contains("Green tea 2") && page.contains("Rye bread 1"),
        "{page}"
    );
    assert!(!page.contains("Welcome"), "{page}");
}

#[tokio::test]
async fn a_form_without_the_token_of_its_session_is_refused() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
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
        assert_is_signed_in(&shop, &phone).await;
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
    assert_is_signed_out(&shop, &visitor).await;
}

#[tokio::test]
async fn a_new_password_takes_a_fresh_one_and_signs_out_the_others() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = on_two_devices(&chromium, &shop).await;
    shop.execute("UPDATE session SET created = created - interval '10 minutes'")
        .await;
    desk.open(&shop.url("/password")).await;
    let before = desk.cookie("__Host-id").await;
    assert!(desk.text().await.contains("Is it you?"));
    shop.confirm(&desk).await;
    assert_ne!(desk.cookie("__Host-id").await.value(), before.value());

    desk.fill("password", "battery staple").await;
    desk.press("Change password").await;
    let page = desk.text().await;
    assert!(page.contains("Your password is changed"), "{page}");
    assert_is_signed_in(&shop, &desk).await;
    assert_is_signed_out(&shop, &phone).await;
    shop.sign_in(&phone, "alice").await;
    let page = phone.text().await;
    assert!(page.contains("Wrong name or password."), "{page}");
}

#[tokio::test]
async fn a_wrong_password_and_an_unknown_name_look_alike() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, visitor) = tokio::join!(chromium.profile(), chromium.profile());
    shop.sign_up(&desk, "alice").await;
    let mut answers = Vec::new();
    for (name, password) in [("alice", "wrong horse"), ("nobody", "correct horse")] {
        visitor.open(&shop.url("/sign-in")).await;
        visitor.fill("name", name).await;
        visitor.fill("password", password).await;
        visitor.press("Sign in").await;
        answers.push(visitor.text().await);
    }
    assert!(answers[0].contains("Wrong name or password."));
    assert_eq!(answers[0], answers[1]);
}

#[tokio::test]
async fn the_sixth_device_signs_out_the_first() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, other) = on_two_devices(&chromium, &shop).await;
    for _ in 3..=6 {
        other.forget_cookies().await;
        shop.sign_in(&other, "alice").await;
    }
    assert_eq!(other.text().await.matches("Chrome on").count(), 5);
    assert_is_signed_out(&shop, &desk).await;
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
async fn every_answer_says_what_browsers_must_not_do() {
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

#[tokio::test]
async fn every_page_fits_a_phone() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (_desk, phone) = on_two_devices(&chromium, &shop).await;
    phone.resize(Window::PHONE).await;
    for page in ["/", "/devices", "/password", "/sign-in", "/sign-up"] {
        phone.open(&shop.url(page)).await;
        let width = phone.script("document.documentElement.scrollWidth").await;
        assert_eq!(width, Window::PHONE.width, "{page}");
    }
}

#[tokio::test]
async fn it_stops_when_asked_and_keeps_who_is_signed_in() {
    let chromium = chromium_or_skip!();
    let mut shop = Shop::open().await;
    let visitor = chromium.profile().await;
    shop.sign_up(&visitor, "alice").await;
    let status = shop.close();
    assert!(status.success(), "{status}");
    let sessions: i64 = sqlx::query_scalar("SELECT count(*) FROM session WHERE user_id = 'alice'")
        .fetch_one(&shop.pool)
        .await
        .expect("a count");
    assert_eq!(sessions, 1);
}
