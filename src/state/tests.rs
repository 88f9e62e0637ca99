use std::time::Duration;

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::{
    document::NativeLayout, expiry::Times, id::RowId, state::changes::encode, timeouts::Timeouts,
    touch::Touch,
};

#[derive(Clone, Debug)]
enum Act {
    Insert(u8),
    Remove,
    Clear,
    Cycle,
    Destroy,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        3 => (0..3_u8).prop_map(Act::Insert),
        2 => Just(Act::Remove),
        1 => Just(Act::Clear),
        1 => Just(Act::Cycle),
        1 => Just(Act::Destroy),
    ];
    vec(act, 0..8)
}

fn perform(state: &mut State, acts: &[Act]) {
    for act in acts {
        match act {
            Act::Insert(value) => {
                let value = encode("key", value).expect("a number");
                state
                    .apply(Change::Insert("key".into(), value))
                    .expect("it fits");
            }
            Act::Remove => state.apply(Change::Remove("key".into())).expect("it fits"),
            Act::Clear => state.apply(Change::Clear).expect("it fits"),
            Act::Cycle => state.cycle(),
            Act::Destroy => state.destroy(),
        }
    }
}

fn stored() -> State {
    let times = Times {
        now: 0.0,
        expires: 86_400.0,
        created: Some(0.0),
        seen: Some(0.0),
    };
    let row = Row::new(
        RowId::from("row".to_owned()),
        Some(r#"{"key":1}"#.into()),
        times,
        &NativeLayout,
    );
    let document = Arc::clone(row.document().expect("an object"));
    let token = Token::new("secret");
    State::new(
        Origin::Stored(Arc::new(row), token),
        document,
        Arc::default(),
    )
}

fn read_only(reason: ReadOnlyReason) -> State {
    State::without_row(Origin::ReadOnly(reason), Arc::default())
}

fn taken(state: &mut State) -> PendingWrites {
    state.take_writes(&Timeouts::default(), Touch::IfDue)
}

fn destroys(acts: &[Act]) -> bool {
    acts.iter().any(|act| matches!(act, Act::Destroy))
}

proptest! {
    #[test]
    fn a_new_session_owes_a_row_exactly_when_it_holds_something(acts in acts()) {
        let mut state = State::without_row(Origin::New, Arc::default());
        perform(&mut state, &acts);
        let is_empty = state.document().is_empty();
        let writes = taken(&mut state);
        prop_assert!(writes.deletions.ended.is_none());
        match writes.write {
            RowWrite::None => prop_assert!(is_empty),
            RowWrite::Insert(document) => prop_assert!(!document.is_empty()),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_token_that_opens_nothing_writes_nothing(acts in acts()) {
        let moved = ReadOnlyReason::Moved { retry_after: Duration::from_secs(5) };
        for reason in [moved, ReadOnlyReason::Ambiguous] {
            let mut state = read_only(reason);
            perform(&mut state, &acts);
            let writes = taken(&mut state);
            prop_assert!(writes.deletions.ended.is_none());
            prop_assert!(matches!(writes.write, RowWrite::None | RowWrite::Refused(..)));
        }
    }

    #[test]
    fn a_destroyed_row_is_never_saved_touched_or_cycled(acts in acts(), rest in self::acts()) {
        let mut state = stored();
        perform(&mut state, &acts);
        state.destroy();
        perform(&mut state, &rest);
        let writes = taken(&mut state);
        let ended = writes.deletions.ended.map(|ended| ended.row.id.clone());
        prop_assert_eq!(ended, Some(RowId::from("row".to_owned())));
        prop_assert!(matches!(writes.write, RowWrite::None | RowWrite::Insert(_)));
    }

    #[test]
    fn a_document_that_is_as_it_was_loaded_is_not_saved(acts in acts()) {
        prop_assume!(!destroys(&acts));
        let mut state = stored();
        perform(&mut state, &acts);
        let cycles = acts.iter().any(|act| matches!(act, Act::Cycle));
        let is_as_loaded = state.document().to_text() == r#"{"key":1}"#;
        match taken(&mut state).write {
            RowWrite::NewId(_) => prop_assert!(cycles),
            RowWrite::Save(..) => prop_assert!(!is_as_loaded),
            RowWrite::None | RowWrite::NoTouchYet => prop_assert!(is_as_loaded && !cycles),
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_dropped_record_leaves_only_the_end(acts in acts()) {
        let mut state = stored();
        perform(&mut state, &acts);
        state.forget_changes();
        let writes = taken(&mut state);
        prop_assert_eq!(writes.deletions.ended.is_some(), destroys(&acts));
        prop_assert!(matches!(writes.write, RowWrite::None | RowWrite::NoTouchYet));
    }

    #[test]
    fn a_write_is_taken_once(acts in acts()) {
        let mut state = stored();
        perform(&mut state, &acts);
        let row = match taken(&mut state).write {
            RowWrite::Save(row, mut record, _) => {
                let mut document = Document::clone(row.document().expect("an object"));
                record.changes.replay(&mut document).expect("it fits");
                prop_assert_eq!(record.outcome.as_deref(), Some(&document));
                Row::new(row.id.clone(), Some(document.to_text().into()), row.times, &NativeLayout)
            }
            _ => return Ok(()),
        };
        state.settle_stored(Arc::new(row), Token::new("another"));
        let rest = taken(&mut state).write;
        prop_assert!(matches!(rest, RowWrite::None | RowWrite::NoTouchYet));
    }
}

#[test]
fn a_closed_session_refuses_changes() {
    let mut state = stored();
    assert!(state.check_open().is_ok());
    state.close();
    let error = state.check_open().expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::ResponseStarted);
}

#[test]
fn a_login_begins_a_session_under_a_token_that_was_replaced_only() {
    let mut own = stored();
    own.log_in(Login::new("ada")).expect("it fits");
    assert!(!own.begins_a_session());

    let mut moved = stored();
    let seen = Arc::clone(moved.document());
    moved.settle_moved(seen);
    moved.cycle();
    assert!(!moved.begins_a_session());
    moved.log_in(Login::new("ada")).expect("it fits");
    assert!(moved.begins_a_session());
}
