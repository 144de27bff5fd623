defmodule Millrace.Database do
  @moduledoc """
  All SQL. One connection in each of a few processes: the processor has its own, so that persisting never waits behind reading. A
  connection that failed is made anew by the next statement. One server writes to a database (see README.md), so `seq` grows in the order
  of the commits.
  """
  use GenServer

  alias Millrace.Event

  @readers {__MODULE__.Reader0, __MODULE__.Reader1, __MODULE__.Reader2, __MODULE__.Reader3}
  @writer __MODULE__.Writer
  @timeout_ms 10_000

  # state: received (left to be taken in), persisted, delivered. The payload is text: jsonb would lose what was sent.
  @schema """
  CREATE TABLE IF NOT EXISTS api_keys (
      key_hash BYTEA PRIMARY KEY, organization_id UUID NOT NULL, organization_name TEXT NOT NULL, tier TEXT NOT NULL);
  CREATE TABLE IF NOT EXISTS events (
      id UUID PRIMARY KEY, seq BIGSERIAL NOT NULL, organization_id UUID NOT NULL, type TEXT NOT NULL, dedup_id TEXT, payload TEXT NOT NULL,
      state TEXT NOT NULL, created_at_us BIGINT NOT NULL, persisted_at_us BIGINT);
  CREATE INDEX IF NOT EXISTS events_inbox ON events (organization_id, seq);
  CREATE INDEX IF NOT EXISTS events_dedup ON events (organization_id, dedup_id, created_at_us) WHERE dedup_id IS NOT NULL;
  CREATE INDEX IF NOT EXISTS events_received ON events (created_at_us) WHERE state = 'received';
  """

  @event "id, organization_id, type, dedup_id, payload, state, created_at_us, persisted_at_us"
  @now_us "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"

  @statements %{
    add_key: "INSERT INTO api_keys (key_hash, organization_id, organization_name, tier) VALUES ($1, $2, $3, $4)",
    organization: "SELECT organization_id FROM api_keys WHERE key_hash = $1",
    write: """
    INSERT INTO events (id, organization_id, type, dedup_id, payload, created_at_us, state, persisted_at_us)
    SELECT *, 'persisted', #{@now_us} FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bigint[])
    ON CONFLICT (id) DO NOTHING
    """,
    # A new seq, so that nothing appears behind a reader's cursor.
    claim: """
    UPDATE events SET state = 'persisted', persisted_at_us = #{@now_us}, seq = DEFAULT WHERE id IN
        (SELECT id FROM events WHERE state = 'received' ORDER BY created_at_us LIMIT $1 FOR UPDATE SKIP LOCKED)
    """,
    holder: """
    SELECT id FROM events WHERE organization_id = $1 AND dedup_id = $2 AND created_at_us > $3 ORDER BY created_at_us DESC LIMIT 1
    """,
    dedup_ids: """
    SELECT organization_id, dedup_id, id, created_at_us FROM events WHERE dedup_id IS NOT NULL AND created_at_us > $1
    ORDER BY created_at_us DESC LIMIT $2
    """,
    event: "SELECT #{@event} FROM events WHERE organization_id = $1 AND id = $2 AND state <> 'received'",
    inbox: """
    SELECT #{@event}, seq FROM events WHERE organization_id = $1 AND seq > $2 AND state <> 'received'
    AND ($3::text IS NULL OR state = $3) ORDER BY seq LIMIT $4
    """,
    acknowledge: "UPDATE events SET state = 'delivered' WHERE organization_id = $1 AND id = $2 AND state <> 'received'"
  }

  def names, do: [@writer | Tuple.to_list(@readers)]

  def start_link({name, url}), do: GenServer.start_link(__MODULE__, url, name: name)

  @doc "Makes the tables."
  def migrate, do: GenServer.call(@writer, :migrate, @timeout_ms)

  @doc "Writes a batch; safe to repeat when it is not known whether it was written."
  def write(events) do
    columns = [{:id, 2950}, {:organization_id, 2950}, {:type, 25}, {:dedup_id, 25}, {:payload, 25}, {:created_at_us, 20}]
    arrays = for {field, oid} <- columns, do: array(oid, Enum.map(events, &Map.fetch!(&1, field)))
    query(@writer, :write, arrays)
  end

  @doc "Takes in rows that are left in the table as `received`; how many."
  def claim(events_max), do: query(@writer, :claim, [events_max])

  @doc "The rows of a SELECT, or how many were changed, by one of the connections for requests."
  def ask(statement, parameters) do
    @readers |> elem(:erlang.phash2(self(), tuple_size(@readers))) |> query(statement, parameters)
  end

  defp query(name, statement, parameters) do
    GenServer.call(name, {statement, parameters}, @timeout_ms)
  catch
    :exit, reason -> {:error, reason}
  end

  def event([id, organization_id, type, dedup_id, payload, state, created_at_us, persisted_at_us | _]) do
    event = %Event{id: id, organization_id: organization_id, type: type, dedup_id: dedup_id, payload: payload, state: state}
    %{event | created_at_us: created_at_us, persisted_at_us: persisted_at_us}
  end

  # A one-dimensional array in PostgreSQL's binary format.
  defp array(oid, values) do
    elements =
      for value <- values, into: <<>> do
        case value do
          nil -> <<-1::32>>
          number when is_integer(number) -> <<8::32, number::64>>
          bytes -> <<byte_size(bytes)::32, bytes::binary>>
        end
      end

    has_null = if Enum.any?(values, &is_nil/1), do: 1, else: 0
    <<1::32, has_null::32, oid::32, length(values)::32, 1::32, elements::binary>>
  end

  @impl true
  def init(url), do: {:ok, %{url: url, connection: nil, prepared: MapSet.new()}}

  @impl true
  def handle_call(request, _from, state) do
    state = connected(state)
    {reply, state} = answer(request, state)
    {:reply, reply, state}
  catch
    # The driver's process has ended, could not be made, or does not answer.
    kind, reason ->
      if state.connection, do: Process.exit(state.connection, :kill)
      {:reply, {:error, {kind, reason}}, %{state | connection: nil}}
  end

  defp connected(%{connection: connection} = state) do
    if connection && Process.alive?(connection), do: state, else: %{state | connection: connect(state.url), prepared: MapSet.new()}
  end

  defp connect(url) do
    uri = URI.parse(url)
    [user | password] = String.split(uri.userinfo || "postgres", ":", parts: 2)
    "/" <> database = uri.path

    options = [
      host: String.to_charlist(uri.host),
      port: uri.port || 5432,
      user: URI.decode(user),
      password: password |> List.first("") |> URI.decode(),
      database: URI.decode(database),
      as_binary: true
    ]

    {:ok, connection} = :pgsql.connect(options)
    connection
  end

  defp answer(:migrate, state) do
    # What is there already is told as a notice, not as an error.
    {:ok, results} = :pgsql.squery(state.connection, @schema)
    {List.keyfind(results, :error, 0, :ok), state}
  end

  defp answer({statement, parameters}, state) do
    state = prepared(statement, state)
    parameters = Enum.map(parameters, &(&1 || :null))

    case :pgsql.execute(state.connection, Atom.to_string(statement), parameters) do
      {:ok, {_command, rows}} when is_list(rows) -> {{:ok, Enum.map(rows, &row/1)}, state}
      {:ok, {_command, count}} -> {{:ok, count}, state}
      {:error, reason} -> {{:error, reason}, state}
    end
  end

  defp prepared(statement, state) do
    if statement in state.prepared do
      state
    else
      {:ok, _, _, _} = :pgsql.prepare(state.connection, Atom.to_string(statement), Map.fetch!(@statements, statement))
      %{state | prepared: MapSet.put(state.prepared, statement)}
    end
  end

  defp row(columns) do
    Enum.map(columns, fn
      {_type, :null} -> nil
      {:int8, text} -> String.to_integer(text)
      {_type, value} -> value
    end)
  end
end
