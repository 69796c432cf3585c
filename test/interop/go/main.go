// A client made of generated stubs only: publishes a stack, then reads it back as the agent it is meant for.
//
// Environment: BROKKR_TARGET host:port, BROKKR_PAK admin key, BROKKR_NAME name of stack and agent, BROKKR_YAML what to
// publish, BROKKR_CA file with the broker's certificate (plain text when unset). Prints one JSON object. The packages under
// gen are written by buf when the test builds this program (hack/interop/go.ts).
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	brokkrv1 "brokkr.test/interop/gen/brokkr/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const deadline = 20 * time.Second

type stackState struct {
	Name       string   `json:"name"`
	Generation uint64   `json:"generation"`
	Kinds      []string `json:"kinds"`
	YAML       string   `json:"yaml"`
}

type result struct {
	AgentID    string       `json:"agent_id"`
	StackID    string       `json:"stack_id"`
	WithoutKey string       `json:"without_key"`
	AgentName  string       `json:"agent_name"`
	Mode       string       `json:"mode"`
	Stacks     []stackState `json:"stacks"`
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	found, err := run(ctx)
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(found)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context) (*result, error) {
	connection, err := connect()
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	found := &result{}
	pak, err := publish(withKey(ctx, os.Getenv("BROKKR_PAK")), connection, found)
	if err != nil {
		return nil, err
	}
	if err := readTargetState(withKey(ctx, pak), connection, found); err != nil {
		return nil, err
	}
	_, err = brokkrv1.NewAgentServiceClient(connection).ListAgents(ctx, &brokkrv1.ListAgentsRequest{})
	found.WithoutKey = status.Code(err).String()
	return found, nil
}

func connect() (*grpc.ClientConn, error) {
	transport := insecure.NewCredentials()
	if ca := os.Getenv("BROKKR_CA"); ca != "" {
		var err error
		if transport, err = credentials.NewClientTLSFromFile(ca, ""); err != nil {
			return nil, err
		}
	}
	return grpc.NewClient(os.Getenv("BROKKR_TARGET"), grpc.WithTransportCredentials(transport))
}

func withKey(ctx context.Context, pak string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", pak)
}

// publish returns the key of the agent it creates.
func publish(ctx context.Context, connection *grpc.ClientConn, found *result) (string, error) {
	agents := brokkrv1.NewAgentServiceClient(connection)
	stacks := brokkrv1.NewStackServiceClient(connection)
	name := os.Getenv("BROKKR_NAME")
	agent, err := agents.CreateAgent(ctx, &brokkrv1.CreateAgentRequest{Name: name, ClusterName: "interop"})
	if err != nil {
		return "", fmt.Errorf("create agent: %w", err)
	}
	stack, err := stacks.CreateStack(ctx, &brokkrv1.CreateStackRequest{Name: name})
	if err != nil {
		return "", fmt.Errorf("create stack: %w", err)
	}
	found.AgentID, found.StackID = agent.GetAgent().GetId(), stack.GetStack().GetId()
	target := &brokkrv1.AddAgentTargetRequest{AgentId: found.AgentID, StackId: found.StackID}
	if _, err := agents.AddAgentTarget(ctx, target); err != nil {
		return "", fmt.Errorf("add target: %w", err)
	}
	content := &brokkrv1.CreateDeploymentObjectRequest{StackId: found.StackID, YamlContent: os.Getenv("BROKKR_YAML")}
	if _, err := stacks.CreateDeploymentObject(ctx, content); err != nil {
		return "", fmt.Errorf("publish: %w", err)
	}
	return agent.GetInitialPak(), nil
}

// readTargetState opens a session and reads up to the end of the snapshot.
func readTargetState(ctx context.Context, connection *grpc.ClientConn, found *result) error {
	session, err := brokkrv1.NewAgentSyncClient(connection).Session(ctx)
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	hello := &brokkrv1.Hello{Versions: []uint32{1}, ClusterUid: "interop", ProcessId: "go", AgentVersion: "interop"}
	if err := session.Send(&brokkrv1.AgentMessage{Seq: 1, Body: &brokkrv1.AgentMessage_Hello{Hello: hello}}); err != nil {
		return fmt.Errorf("send hello: %w", err)
	}
	for {
		frame, err := session.Recv()
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		switch body := frame.GetBody().(type) {
		case *brokkrv1.BrokerMessage_Welcome:
			found.AgentName, found.Mode = body.Welcome.GetAgentName(), body.Welcome.GetMode().String()
		case *brokkrv1.BrokerMessage_Upsert:
			found.Stacks = append(found.Stacks, stackOf(body.Upsert))
		case *brokkrv1.BrokerMessage_SnapshotEnd:
			bye := &brokkrv1.AgentMessage_Bye{Bye: &brokkrv1.Bye{Reason: "done"}}
			if err := session.Send(&brokkrv1.AgentMessage{Seq: 2, Ack: frame.GetSeq(), Body: bye}); err != nil {
				return fmt.Errorf("send bye: %w", err)
			}
			return session.CloseSend()
		}
	}
}

func stackOf(upsert *brokkrv1.Upsert) stackState {
	var text strings.Builder
	for _, blob := range upsert.GetBlobs() {
		text.Write(blob.GetData())
	}
	kinds := []string{}
	for _, entry := range upsert.GetManifest().GetEntries() {
		kinds = append(kinds, entry.GetKind())
	}
	return stackState{Name: upsert.GetStackName(), Generation: upsert.GetGeneration(), Kinds: kinds, YAML: text.String()}
}
