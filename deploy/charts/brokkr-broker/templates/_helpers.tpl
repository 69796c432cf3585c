{{- define "broker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "broker.fullname" -}}
{{- $name := include "broker.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "broker.selectorLabels" -}}
app.kubernetes.io/name: {{ include "broker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "broker.labels" -}}
{{ include "broker.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "broker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "broker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Secret and key of the connection URL: given, of the bundled database, or made of postgresql.external. */}}
{{- define "broker.databaseSecret" -}}
{{- with .Values.postgresql -}}
{{- if .existingSecret -}}
{name: {{ .existingSecret }}, key: {{ .existingSecretKey }}}
{{- else if .enabled -}}
{name: {{ include "postgresql.fullname" $ }}, key: database-url}
{{- else -}}
{name: {{ include "broker.fullname" $ }}, key: database-url}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A connection URI; every part is encoded. */}}
{{- define "broker.databaseUrl" -}}
{{- with .Values.postgresql.external -}}
{{- $user := .username | urlquery | replace "+" "%20" -}}
{{- $password := .password | urlquery | replace "+" "%20" -}}
{{- $database := .database | urlquery | replace "+" "%20" -}}
{{- $host := ternary (printf "[%s]" .host) .host (contains ":" .host) -}}
postgres://{{ $user }}{{ with $password }}:{{ . }}{{ end }}@{{ $host }}:{{ .port }}/{{ $database }}?sslmode={{ .sslmode }}
{{- end -}}
{{- end -}}

{{- define "broker.tlsSecretName" -}}
{{- default (printf "%s-tls" (include "broker.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* Hosts of the Ingress, as a JSON list. */}}
{{- define "broker.ingressHosts" -}}
{{- $hosts := list -}}
{{- range .Values.ingress.hosts -}}{{- $hosts = append $hosts .host -}}{{- end -}}
{{- if not $hosts -}}{{- range .Values.ingress.tls -}}{{- $hosts = concat $hosts .hosts -}}{{- end -}}{{- end -}}
{{- $hosts | uniq | toJson -}}
{{- end -}}

{{/* Names in the certificate that cert-manager issues for the broker, as a JSON list. */}}
{{- define "broker.tlsNames" -}}
{{- $hosts := ternary (include "broker.ingressHosts" . | fromJsonArray) (list) .Values.ingress.enabled -}}
{{- $name := include "broker.fullname" . -}}
{{- $service := list $name (printf "%s.%s" $name .Release.Namespace) (printf "%s.%s.svc" $name .Release.Namespace) -}}
{{- .Values.tls.certManager.dnsNames | default $hosts | default $service | toJson -}}
{{- end -}}

{{/* Settings that are no secrets, as environment variables. */}}
{{- define "broker.environment" -}}
BROKKR__BROKER__LISTEN: "0.0.0.0:3000"
BROKKR__BROKER__AGENT_ACCEPTANCE: {{ .Values.broker.agentAcceptance | quote }}
BROKKR__BROKER__WEBHOOK_DELIVERY_BATCH_SIZE: {{ .Values.broker.webhookDeliveryBatchSize | quote }}
BROKKR__BROKER__WEBHOOK_DELIVERY_INTERVAL_SECONDS: {{ .Values.broker.webhookDeliveryIntervalSeconds | quote }}
BROKKR__BROKER__METRICS: {{ .Values.metrics.enabled | quote }}
BROKKR__LOG__LEVEL: {{ .Values.broker.logLevel | quote }}
BROKKR__DATABASE__SCHEMA: {{ .Values.postgresql.external.schema | quote }}
{{- if .Values.tls.enabled }}
BROKKR__TLS__CERT: /etc/brokkr/tls/tls.crt
BROKKR__TLS__KEY: /etc/brokkr/tls/tls.key
{{- end }}
{{- if .Values.telemetry.enabled }}
BROKKR__TELEMETRY__ENABLED: "true"
BROKKR__TELEMETRY__OTLP_ENDPOINT: {{ ternary "http://localhost:4317" .Values.telemetry.otlpEndpoint .Values.telemetry.sidecar.enabled | quote }}
BROKKR__TELEMETRY__SAMPLING_RATE: {{ .Values.telemetry.samplingRate | quote }}
BROKKR__TELEMETRY__SERVICE_NAME: {{ .Values.telemetry.serviceName | quote }}
{{- end }}
{{- range $name, $value := .Values.broker.settings }}
BROKKR__{{ $name | upper | replace "." "__" }}: {{ $value | toString | quote }}
{{- end }}
{{- end -}}

{{/* Addresses that are not public; of IPv6 only 2000::/3 is. The same as `private` of flow sets. */}}
{{- define "broker.publicAddresses" -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      - 0.0.0.0/8
      - 10.0.0.0/8
      - 100.64.0.0/10
      - 127.0.0.0/8
      - 169.254.0.0/16
      - 172.16.0.0/12
      - 192.0.0.0/24
      - 192.168.0.0/16
      - 198.18.0.0/15
      - 224.0.0.0/4
      - 240.0.0.0/4
- ipBlock:
    cidr: 2000::/3
    except:
      - 2001::/32
      - 2002::/16
{{- end -}}
