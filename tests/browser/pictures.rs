//! The pictures of the README. They are drawn into the target folder, and kept
//! beside the example by
//!
//! ```sh
//! UPDATE_SCREENSHOTS=1 cargo test -p browser-tests pictures
//! ```

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::support::{Profile, Shop, Window, chromium_or_skip};

const TABLET: &str = "--user-agent=Mozilla/5.0 (iPad; CPU OS 19_0 like Mac OS X) \
                      AppleWebKit/605.1.15 (KHTML, like Gecko) Version/19.0 Safari/604.1";
const PHONE: &str = "--user-agent=Mozilla/5.0 (Android 15; Mobile; rv:145.0) \
                     Gecko/145.0 Firefox/145.0";
/// A README should load quickly.
const MAX_BYTES: usize = 100_000;

/// Days have passed since the logins, and they came from other places.
const LIVED_IN: [&str; 3] = [
    "UPDATE session SET device = replace(device::text, '127.0.0.1', '192.0.2.7')::json",
    "UPDATE session SET created = now() - interval '6 days', last_seen = now() - interval '2 days'
     WHERE device::text LIKE '%iPad%'",
    "UPDATE session SET created = now() - interval '3 hours',
     last_seen = now() - interval '12 minutes',
     device = replace(device::text, '192.0.2.7', '198.51.100.23')::json
     WHERE device::text LIKE '%Android%'",
];

#[tokio::test]
async fn of_a_desk_and_a_phone() {
    let chromium = chromium_or_skip!();
    let shop = Shop::open().await;
    let (desk, phone, tablet) = tokio::join!(
        chromium.profile(),
        chromium.profile_with(&[PHONE]),
        chromium.profile_with(&[TABLET]),
    );
    desk.resize(Window::DESKTOP).await;
    phone.resize(Window::PHONE).await;

    desk.open(&shop.url("/")).await;
    desk.press("Add Green tea").await;
    shop.sign_up(&desk, "alice").await;
    shop.sign_in_and_stay(&tablet, "alice").await;
    shop.sign_in(&phone, "alice").await;
    for sql in LIVED_IN {
        shop.execute(sql).await;
    }
    // The messages of the logins are read.
    desk.open(&shop.url("/devices")).await;
    desk.open(&shop.url("/devices")).await;
    keep(&desk, "desktop.png").await;
    phone.open(&shop.url("/devices")).await;
    keep(&phone, "phone.png").await;
    for (page, name) in [("/", "shop.png"), ("/password", "password.png")] {
        desk.open(&shop.url(page)).await;
        draw(&desk, name).await;
    }
    phone.open(&shop.url("/")).await;
    draw(&phone, "phone-shop.png").await;
    phone.press("Sign out").await;
    phone.open(&shop.url("/sign-in")).await;
    draw(&phone, "phone-sign-in.png").await;
}

/// Draws a picture, and copies it to its place with `UPDATE_SCREENSHOTS`.
async fn keep(visitor: &Profile, name: &str) {
    let drawn = draw(visitor, name).await;
    if env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/devices");
        fs::copy(drawn, kept.join(name)).expect("a place for it");
    }
}

async fn draw(visitor: &Profile, name: &str) -> PathBuf {
    let picture = visitor.screenshot().await;
    assert!(picture.len() < MAX_BYTES, "{name}: {}", picture.len());
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("screenshots");
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join(name);
    fs::write(&file, picture).expect("a place for it");
    file
}
