-- Guess budgets, by lane: '' for all browsers that never passed, 'enrolment' for first proofs of pending factors, else the keyed
-- hash of a device that passed, last at seen_at. state is JSON that no statement looks into, paused_until the end of its pauses. Takes the place of throttles,
-- which a later release drops.
create table throttle_lanes (
  rp_id text not null,
  user_id text not null,
  lane text not null,
  version bigint not null,
  state text not null,
  seen_at bigint,
  paused_until bigint,
  primary key (rp_id, user_id, lane)
);
create index throttle_lanes_paused on throttle_lanes (paused_until) where paused_until is not null;
create index throttle_lanes_seen on throttle_lanes (seen_at) where seen_at is not null;
