{{- define "agent.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "agent.fullname" -}}
{{- $name := include "agent.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "agent.selectorLabels" -}}
app.kubernetes.io/name: {{ include "agent.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "agent.labels" -}}
{{ include "agent.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "agent.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "agent.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Settings that are no secrets, as environment variables. */}}
{{- define "agent.environment" -}}
BROKKR__AGENT__BROKER_URL: {{ .Values.broker.url | quote }}
BROKKR__AGENT__PAK_FILE: /run/brokkr/key/pak
BROKKR__AGENT__DATA_DIR: /var/lib/brokkr
BROKKR__AGENT__AGENT_NAME: {{ .Values.agent.name | quote }}
BROKKR__AGENT__CLUSTER_NAME: {{ .Values.agent.clusterName | quote }}
BROKKR__AGENT__POLLING_INTERVAL: "{{ .Values.agent.pollingInterval }}s"
BROKKR__AGENT__DEPLOYMENT_HEALTH_INTERVAL: "{{ .Values.agent.deploymentHealth.intervalSeconds }}s"
BROKKR__AGENT__ENVIRONMENT: {{ .Values.agent.environment }}
BROKKR__LOG__LEVEL: {{ .Values.agent.logLevel }}
{{- if not .Values.rbac.clusterWide }}
BROKKR__AGENT__WATCH_NAMESPACE: {{ .Release.Namespace | quote }}
{{- end }}
{{- if .Values.broker.caSecret }}
BROKKR__AGENT__CA_FILE: /run/brokkr/ca/ca.crt
{{- end }}
{{- if .Values.telemetry.enabled }}
BROKKR__TELEMETRY__ENABLED: "true"
BROKKR__TELEMETRY__OTLP_ENDPOINT: {{ .Values.telemetry.otlpEndpoint | quote }}
BROKKR__TELEMETRY__SAMPLING_RATE: {{ .Values.telemetry.samplingRate | quote }}
BROKKR__TELEMETRY__SERVICE_NAME: {{ .Values.telemetry.serviceName | quote }}
{{- end }}
{{- range $name, $value := .Values.agent.settings }}
BROKKR__{{ $name | upper | replace "." "__" }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* Rules about Secrets: none, writing, or everything. */}}
{{- define "agent.secretRules" -}}
{{- with .Values.rbac.secretAccess -}}
{{- if .enabled }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [{{ if .readContents }}get, list, watch, {{ end }}create, patch, delete]
{{- end -}}
{{- end -}}
{{- end -}}
