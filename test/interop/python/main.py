"""A client made of generated stubs only: publishes a stack, then reads it back as the agent it is meant for.

Environment: BROKKR_TARGET host:port, BROKKR_PAK admin key, BROKKR_NAME name of stack and agent, BROKKR_YAML what to publish,
BROKKR_CA file with the broker's certificate (plain text when unset). Prints one JSON object.
"""

import json
import os
import queue

import grpc

from brokkr.v1 import agents_pb2, agents_pb2_grpc, stacks_pb2, stacks_pb2_grpc, sync_pb2, sync_pb2_grpc

DEADLINE_SECONDS = 20
FRAMES_AT_MOST = 100


def connect() -> grpc.Channel:
    target = os.environ["BROKKR_TARGET"]
    ca = os.environ.get("BROKKR_CA")
    if not ca:
        return grpc.insecure_channel(target)
    with open(ca, "rb") as file:
        return grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()))


def authorization(pak: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", pak),)


def publish(channel: grpc.Channel, name: str, yaml: str) -> tuple[str, str, str]:
    """Returns the ids of agent and stack, and the agent's key."""
    as_admin = {"metadata": authorization(os.environ["BROKKR_PAK"]), "timeout": DEADLINE_SECONDS}
    agents = agents_pb2_grpc.AgentServiceStub(channel)
    stacks = stacks_pb2_grpc.StackServiceStub(channel)
    created = agents.CreateAgent(agents_pb2.CreateAgentRequest(name=name, cluster_name="interop"), **as_admin)
    stack = stacks.CreateStack(stacks_pb2.CreateStackRequest(name=name), **as_admin).stack
    agents.AddAgentTarget(
        agents_pb2.AddAgentTargetRequest(agent_id=created.agent.id, stack_id=stack.id), **as_admin
    )
    stacks.CreateDeploymentObject(
        stacks_pb2.CreateDeploymentObjectRequest(stack_id=stack.id, yaml_content=yaml), **as_admin
    )
    return created.agent.id, stack.id, created.initial_pak


def read_target_state(channel: grpc.Channel, pak: str) -> dict:
    """Opens a session and reads up to the end of the snapshot."""
    outgoing: queue.SimpleQueue = queue.SimpleQueue()
    hello = sync_pb2.Hello(versions=[1], cluster_uid="interop", process_id="python", agent_version="interop")
    outgoing.put(sync_pb2.AgentMessage(seq=1, hello=hello))
    session = sync_pb2_grpc.AgentSyncStub(channel).Session(
        iter(outgoing.get, None), metadata=authorization(pak), timeout=DEADLINE_SECONDS
    )
    state: dict = {"stacks": []}
    for _, frame in zip(range(FRAMES_AT_MOST), session):
        body = frame.WhichOneof("body")
        if body == "welcome":
            state["agent_name"] = frame.welcome.agent_name
            state["mode"] = sync_pb2.SyncMode.Name(frame.welcome.mode)
        elif body == "upsert":
            contents = [blob.data.decode() for blob in frame.upsert.blobs]
            kinds = [entry.kind for entry in frame.upsert.manifest.entries]
            upsert = {"name": frame.upsert.stack_name, "generation": frame.upsert.generation}
            state["stacks"].append({**upsert, "kinds": kinds, "yaml": "".join(contents)})
        elif body == "snapshot_end":
            outgoing.put(sync_pb2.AgentMessage(seq=2, ack=frame.seq, bye=sync_pb2.Bye(reason="done")))
            outgoing.put(None)
            break
    return state


def main() -> None:
    name = os.environ["BROKKR_NAME"]
    with connect() as channel:
        agent_id, stack_id, pak = publish(channel, name, os.environ["BROKKR_YAML"])
        state = read_target_state(channel, pak)
        refused = agents_pb2_grpc.AgentServiceStub(channel)
        try:
            refused.ListAgents(agents_pb2.ListAgentsRequest(), timeout=DEADLINE_SECONDS)
            without_key = "OK"
        except grpc.RpcError as error:
            without_key = error.code().name
    print(json.dumps({"agent_id": agent_id, "stack_id": stack_id, "without_key": without_key, **state}))


if __name__ == "__main__":
    main()
