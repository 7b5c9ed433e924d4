package configchange

import (
	"context"
	"fmt"

	authenticationv1 "k8s.io/api/authentication/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	doryv1alpha1 "github.com/dory-io/dory/api/v1alpha1"
)

// The ClusterRoles by which the operator may watch, namespace by namespace: nowhere may it list the states of the whole
// cluster. It binds the one for ConfigMaps itself, where a Processor needs it. The one for Secrets is for people to bind,
// because the right to watch Secrets is the right to read them.
const (
	configRole  = "dory-config-watcher"
	watcherRole = "dory-secret-watcher"
)

// granter binds configRole to the operator.
type granter struct{ self client.Client }

func (g granter) grant(ctx context.Context, namespace string) error {
	review := &authenticationv1.SelfSubjectReview{}
	if err := g.self.Create(ctx, review, client.DisableReadYourWritesConsistency); err != nil { // There is no list of reviews.
		return fmt.Errorf("asking the API server who the operator is: %w", err)
	}
	binding := &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: configRole, Labels: map[string]string{doryv1alpha1.LabelManagedBy: doryv1alpha1.ManagedBy},
		},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: configRole},
		Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: review.Status.UserInfo.Username}},
	}
	if err := g.self.Create(ctx, binding, client.DisableReadYourWritesConsistency); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("binding ClusterRole %s in namespace %s: %w", configRole, namespace, err)
	}
	return nil
}
