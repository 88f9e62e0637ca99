//! `examples/devices`: a user with several devices, each a browser of its own.

use crate::support::{Shop, Window, chromium_or_skip};

#[tokio::test]
async fn a_user_sees_both_devices_and_ends_one_from_the_other() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
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
    shop.assert_is_signed_out(&phone).await;
    shop.assert_is_signed_in(&desk).await;
}

#[tokio::test]
async fn signing_out_everywhere_else_leaves_this_device_and_other_users() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
    let bob = chromium.profile().await;
    shop.sign_up(&bob, "bob").await;

    phone.press("Sign out everywhere else").await;
    let page = phone.text().await;
    assert!(page.contains("One other device is signed out."), "{page}");
    shop.assert_is_signed_out(&desk).await;
    shop.assert_is_signed_in(&phone).await;
    shop.assert_is_signed_in(&bob).await;
}

#[tokio::test]
async fn a_user_can_not_end_the_session_of_another_user() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, _phone) = shop.on_two_devices(&chromium).await;
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
    shop.assert_is_signed_in(&bob).await;
}

#[tokio::test]
async fn after_logout_the_back_button_shows_nothing_private() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone) = shop.on_two_devices(&chromium).await;
    desk.press("Sign out").await;
    assert_eq!(desk.url().await, shop.url("/"));
    desk.back().await;
    let page = desk.text().await;
    assert!(
        !page.contains("alice") && !page.contains("Chrome on"),
        "{page}"
    );
    shop.assert_is_signed_out(&desk).await;
    shop.assert_is_signed_in(&phone).await;
}

#[tokio::test]
async fn the_sixth_device_signs_out_the_first() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, other) = shop.on_two_devices(&chromium).await;
    for _ in 3..=6 {
        other.forget_cookies().await;
        shop.sign_in(&other, "alice").await;
    }
    assert_eq!(other.text().await.matches("Chrome on").count(), 5);
    shop.assert_is_signed_out(&desk).await;
}

#[tokio::test]
async fn every_page_fits_a_phone() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (_desk, phone) = shop.on_two_devices(&chromium).await;
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
