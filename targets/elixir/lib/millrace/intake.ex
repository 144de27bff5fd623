defmodule Millrace.Intake do
  @moduledoc """
  Between the request and the processor: what is pending, which `dedup_id` is taken, which answer belongs to an `Idempotency-Key`. One
  process decides, one event after the other, so two requests in flight at once cannot both be first. Everybody may look into its tables.
  """
  use GenServer

  alias Millrace.{Database, Event, Keys, Problem, Processor, Recent}

  @pending __MODULE__.Pending
  @counts __MODULE__.Counts
  @dedup __MODULE__.Dedup
  @answers __MODULE__.Answers

  @pending_bytes_max 64 * 1024 * 1024
  # What an event takes beside its payload.
  @event_overhead_bytes 1024
  @dedup_window_us 24 * 3_600_000_000
  @dedup_entries_max 500_000
  @answer_entries_max 100_000

  def start_link(pending_events_max), do: GenServer.start_link(__MODULE__, pending_events_max, name: __MODULE__)

  @doc """
  Takes an event in: `{:ok, id}` may be acknowledged. `repeat` is nil, or the `Idempotency-Key` and a fingerprint of the body; the id of the
  first event comes again for the same two.
  """
  def accept(event, repeat) do
    with :ok <- check_forgotten(event, repeat), do: GenServer.call(__MODULE__, {:accept, event, repeat})
  catch
    :exit, _ -> Problem.unavailable("full", "the server is too busy")
  end

  # Only when the last 24 h had more ids than are kept in memory: then this is asked of the database, outside of the one process.
  defp check_forgotten(%Event{dedup_id: nil}, _), do: :ok

  defp check_forgotten(event, repeat) do
    since_us = event.created_at_us - @dedup_window_us
    is_known = Recent.get(@dedup, dedup_key(event)) || Recent.get(@answers, repeat_key(event, repeat))

    if is_known || count(:forgotten_us) <= since_us do
      :ok
    else
      case Database.ask(:holder, [event.organization_id, event.dedup_id, since_us]) do
        {:ok, []} -> :ok
        {:ok, [[id]]} -> duplicate(id)
        {:error, _} -> Problem.database_unavailable()
      end
    end
  end

  @doc "From now on every event is refused."
  def close, do: GenServer.call(__MODULE__, :close)

  @doc "A pending event, or nil."
  def pending(id) do
    case :ets.lookup(@pending, id) do
      [{_, event}] -> event
      [] -> nil
    end
  end

  def pending_count, do: :ets.info(@pending, :size)

  @doc "The oldest pending events, at most `limit`. They stay until `persisted/1`."
  def oldest(limit) do
    case :ets.select(@pending, [{{:_, :"$1"}, [], [:"$1"]}], limit) do
      {events, _} -> events
      :"$end_of_table" -> []
    end
  end

  def persisted(events) do
    for event <- events, do: :ets.delete(@pending, event.id)
    add(:pending_bytes, -Enum.sum(Enum.map(events, &size/1)))
    add(:persisted, length(events))
  end

  def count(name), do: :ets.lookup_element(@counts, name, 2)
  def add(name, number), do: :ets.update_counter(@counts, name, number)

  @impl true
  def init(pending_events_max) do
    :ets.new(@pending, [:named_table, :ordered_set, :public, read_concurrency: true])
    :ets.new(@counts, [:named_table, :public, write_concurrency: true])
    counts = [:acknowledged, :persisted, :duplicate, :pending_bytes, :forgotten_us, :in_flight, :stopping]
    polls = [:polls_empty, :polls_partial, :polls_full]
    :ets.insert(@counts, for(name <- counts ++ polls, do: {name, 0}))
    Recent.new(@dedup)
    Recent.new(@answers)
    Keys.init()
    :ok = Database.migrate()
    since_us = System.os_time(:microsecond) - @dedup_window_us
    {:ok, rows} = Database.ask(:dedup_ids, [since_us, @dedup_entries_max])
    for [organization_id, dedup_id, id, at_us] <- rows, do: Recent.put(@dedup, {organization_id, dedup_id}, id, at_us)
    if length(rows) == @dedup_entries_max, do: :ets.insert(@counts, {:forgotten_us, rows |> List.last() |> List.last()})
    {:ok, pending_events_max}
  end

  @impl true
  def handle_call({:accept, event, repeat}, _from, pending_events_max) do
    reply =
      with :new <- first_answer(event, repeat), :new <- holder(event), :ok <- take_in(event, pending_events_max) do
        if event.dedup_id, do: keep_dedup(event)
        if repeat, do: keep_answer(event, repeat)
        add(:acknowledged, 1)
        {:ok, event.id}
      end

    {:reply, reply, pending_events_max}
  end

  # No event fits into a buffer of none.
  def handle_call(:close, _from, _pending_events_max), do: {:reply, :ok, 0}

  defp first_answer(_event, nil), do: :new

  defp first_answer(event, {_, fingerprint} = repeat) do
    case Recent.get(@answers, repeat_key(event, repeat)) do
      {{id, ^fingerprint}, at_us} when at_us > event.created_at_us - @dedup_window_us -> {:ok, id}
      {_, at_us} when at_us > event.created_at_us - @dedup_window_us -> reused()
      _ -> :new
    end
  end

  defp reused do
    Problem.new(422, "idempotency-key-reused", "this Idempotency-Key was used with another body; use a new key for a new request")
  end

  defp holder(%Event{dedup_id: nil}), do: :new

  defp holder(event) do
    case Recent.get(@dedup, dedup_key(event)) do
      {id, at_us} when at_us > event.created_at_us - @dedup_window_us -> duplicate(id)
      _ -> :new
    end
  end

  defp duplicate(id) do
    add(:duplicate, 1)
    id = Event.format_id(id)
    Problem.new(409, "duplicate", "an event with this dedup_id was already accepted: its id is #{id}; don't send it again", %{id: id})
  end

  defp take_in(event, pending_events_max) do
    pending_count = pending_count()

    if pending_count >= pending_events_max or count(:pending_bytes) + size(event) > @pending_bytes_max do
      Problem.unavailable("full", "the server holds as much unfinished work as it may")
    else
      add(:pending_bytes, size(event))
      :ets.insert(@pending, {event.id, event})
      # A processor that rests while something is pending looks again by itself.
      if pending_count == 0, do: send(Processor, :arrived)
      :ok
    end
  end

  # More entries are kept than events may be pending, so what is forgotten is persisted.
  defp keep_dedup(event) do
    Recent.put(@dedup, dedup_key(event), event.id, event.created_at_us)
    if at_us = Recent.trim(@dedup, @dedup_entries_max), do: :ets.insert(@counts, {:forgotten_us, at_us})
  end

  defp keep_answer(event, {_, fingerprint} = repeat) do
    Recent.put(@answers, repeat_key(event, repeat), {event.id, fingerprint}, event.created_at_us)
    Recent.trim(@answers, @answer_entries_max)
  end

  defp dedup_key(event), do: {event.organization_id, event.dedup_id}
  defp repeat_key(_event, nil), do: nil
  defp repeat_key(event, {key, _}), do: {event.organization_id, key}
  defp size(event), do: byte_size(event.payload) + @event_overhead_bytes
end

defmodule Millrace.Recent do
  @moduledoc "A table that forgets its oldest entries first. Only its owner writes; everybody reads."

  def new(table) do
    :ets.new(table, [:named_table, read_concurrency: true])
    :ets.new(ages(table), [:named_table, :ordered_set])
  end

  @doc "A value and its time, or nil."
  def get(table, key) do
    case :ets.lookup(table, key) do
      [{_, value, at_us}] -> {value, at_us}
      [] -> nil
    end
  end

  def put(table, key, value, at_us) do
    with {_, old_us} <- get(table, key), do: :ets.delete(ages(table), {old_us, key})
    :ets.insert(table, {key, value, at_us})
    :ets.insert(ages(table), {{at_us, key}})
  end

  @doc "Forgets the oldest entry when there are more than `entries_max`: its time, or nil."
  def trim(table, entries_max) do
    if :ets.info(table, :size) > entries_max do
      {at_us, key} = oldest = :ets.first(ages(table))
      :ets.delete(ages(table), oldest)
      :ets.delete(table, key)
      at_us
    end
  end

  # Only known atoms: two tables are made at the start.
  defp ages(table), do: Module.concat(table, Ages)
end
