//! Signing in at `examples/devices`, and what a session keeps.

use crate::support::{Cookie, Lifetime, Shop, chromium_or_skip};

#[tokio::test]
async fn the_cookie_is_as_promised_and_new_with_each_login() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let visitor = chromium.profile().await;
    visitor.open(&shop.url("/sign-up")).await;
    let before = visitor.default_cookie().await;
    shop.sign_up(&visitor, "alice").await;
    let after = visitor.default_cookie().await;
    assert_eq!(visitor.jar().await, [Cookie::by_default()]);
    assert_eq!(after.lifetime(), Lifetime::Days(1));
    assert_ne!(before.value(), after.value());
}

#[tokio::test]
async fn who_is_remembered_stays_signed_in_for_longer() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
    shop.sign_in_and_stay(&phone, "alice").await;
    assert_eq!(desk.default_cookie().await.lifetime(), Lifetime::Days(1));
    assert_eq!(phone.default_cookie().await.lifetime(), Lifetime::Days(180));
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
async fn a_new_password_takes_a_fresh_one_and_signs_out_the_others() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
    shop.execute("UPDATE session SET created = created - interval '10 minutes'")
        .await;
    desk.open(&shop.url("/password")).await;
    let before = desk.default_cookie().await;
    assert!(desk.text().await.contains("Is it you?"));
    shop.confirm(&desk).await;
    assert_ne!(desk.default_cookie().await.value(), before.value());

    desk.fill("password", "battery staple").await;
    desk.press("Change password").await;
    let page = desk.text().await;
    assert!(page.contains("Your password is changed"), "{page}");
    shop.assert_is_signed_in(&desk).await;
    shop.assert_is_signed_out(&phone).await;
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
    let mut responses = Vec::new();
    for (name, password) in [("alice", "wrong horse"), ("nobody", "correct horse")] {
        visitor.open(&shop.url("/sign-in")).await;
        visitor.fill("name", name).await;
        visitor.fill("password", password).await;
        visitor.press("Sign in").await;
        responses.push(visitor.text().await);
    }
    assert!(responses[0].contains("Wrong name or password."));
    assert_eq!(responses[0], responses[1]);
}
