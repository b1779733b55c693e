-- Audit events are numbered and chained after they were committed, by a sealer outside the calls that wrote them. person is a
-- salted digest of whom an event tells of; the salt goes when the user is erased, and the chain stays whole.
alter table events add column sequence bigint;
alter table events add column salt bytea;
alter table events add column person bytea;
alter table events add column hash bytea;
create unique index events_sequence on events (rp_id, sequence) where sequence is not null;
create index events_user on events (rp_id, user_id, sequence) where sequence is not null;
create index events_unsealed on events (rp_id, at, id) where sequence is null;

-- Where each chain ends, and the proof that this engine wrote so: without the key ring nobody can move an end back.
create table chain_heads (
  rp_id text primary key,
  sequence bigint not null,
  hash bytea not null,
  sealed_at bigint not null,
  mac bytea not null
);

-- A key of the ring is known to every node before it is used; null: at once. The meta row is what two changes of the ring contend for.
alter table key_ring add column active_from bigint;
insert into meta (name, value) values ('key_ring_version', '0');
