/// Moves places apart until each has `gap` to the next, as little as that
/// takes, and keeps them between `low` and `high` where there is room.
///
/// Returns them in the order in which they came.
pub(super) fn spread(wanted: &[i32], gap: i32, low: i32, high: i32) -> Vec<i32> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|at| wanted[*at]);
    let mut groups: Vec<Group> = Vec::new();
    for at in &order {
        groups.push(Group::of(wanted[*at]));
        join_those_that_touch(&mut groups, gap, low, high);
    }
    let places = groups.iter().flat_map(|group| group.places(gap, low, high));
    let mut spread = vec![0; wanted.len()];
    for (at, place) in order.into_iter().zip(places) {
        spread[at] = place;
    }
    spread
}

/// Places that lie one gap apart, around the mean of what they wanted.
#[derive(Clone, Copy, Debug)]
struct Group {
    count: i32,
    sum: i32,
}

impl Group {
    fn of(place: i32) -> Self {
        Self {
            count: 1,
            sum: place,
        }
    }

    fn first(self, gap: i32, low: i32, high: i32) -> i32 {
        let length = gap * (self.count - 1);
        let centred = self.sum / self.count - length / 2;
        centred.min(high - length).max(low)
    }

    fn places(self, gap: i32, low: i32, high: i32) -> impl Iterator<Item = i32> {
        let first = self.first(gap, low, high);
        (0..self.count).map(move |at| first + at * gap)
    }
}

fn join_those_that_touch(groups: &mut Vec<Group>, gap: i32, low: i32, high: i32) {
    while let [.., above, below] = groups[..] {
        let next = above.first(gap, low, high) + gap * above.count;
        if next <= below.first(gap, low, high) {
            return;
        }
        groups.truncate(groups.len() - 2);
        groups.push(Group {
            count: above.count + below.count,
            sum: above.sum + below.sum,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_with_room_stay_where_they_are() {
        assert_eq!(spread(&[50, 10, 90], 20, 0, 100), [50, 10, 90]);
    }

    #[test]
    fn equal_places_move_apart_around_their_middle() {
        assert_eq!(spread(&[50, 50, 50], 20, 0, 100), [30, 50, 70]);
    }

    #[test]
    fn nothing_leaves_the_limits() {
        assert_eq!(spread(&[98, 99], 20, 0, 100), [80, 100]);
        assert_eq!(spread(&[1, 2], 20, 0, 100), [0, 20]);
    }

    #[test]
    fn a_group_that_grew_pushes_its_neighbour_on() {
        let places = spread(&[40, 45, 60], 20, 0, 200);
        assert!(
            places.windows(2).all(|pair| pair[1] - pair[0] >= 20),
            "{places:?}"
        );
    }
}
